"""Latent states of video and how actions change them: learned without labels, probed, and used to plan."""

from noumena.core.family import Family, Headline

FAMILY = Family(
    name="worldmodels",
    summary="video and actions: latent states with dynamics (JEPA, RSSM), probed and used to plan",
    models={
        "jepa": "noumena.worldmodels.jepa:JEPA",
        "rssm": "noumena.worldmodels.rssm:RSSM",
        "supervised": "noumena.worldmodels.baselines:Supervised",
        "random": "noumena.worldmodels.baselines:Random",
    },
    data={
        "dots": "noumena.worldmodels.dots.data:open_dots",
        "two-rooms": "noumena.worldmodels.environments.data:open_two_rooms",
        "episodes": "noumena.worldmodels.episodes.data:open_episodes",
    },
    stream="noumena.worldmodels.episodes.stream:stream_sequences",
    evaluate="noumena.worldmodels.evaluate:evaluate",
    importers={"jepa-ssl": "noumena.worldmodels.importing:import_jepa_ssl"},
    study="noumena.worldmodels.migration.sections:recipe_sections",
    explore="noumena.worldmodels.exploring:explore",
    demo=(
        "worldmodels/jepa-robust",
        "data.fixed=1.0",
        "data.sequences=3200",
        "fit.max_epochs=5",
        "fit.beta_period_epochs=5",
        "evaluate.probe_train_sequences=1200",
        "evaluate.probe_sequences=300",
        "evaluate.plan_episodes=20",
    ),
    headline=Headline(
        metric="rmse",
        baseline="untrained/rmse",
        says="error of the dot's position read from imagined futures, r.m.s. over all steps",
        against="the same networks before training",
        unit="px",
        picture="strips",
        shows="A dot under noise that stays the same within each film. The model sees the first frame and the actions; "
        "crosses are positions that a linear probe reads from the latents it imagines, circles the truth. It was "
        "trained without positions. Guesses that know the true start are in the report.",
    ),
    purpose="For films and the actions between their frames: learns latent states and how actions change them, without "
    "labels, so that futures can be imagined and actions planned. Here: a dot that moves under heavy noise.",
    tries={
        "noumena plan {run} -n 10 --film plan.gif": "Let it plan its way to goals, and film one of them.",
        "noumena explore {run}": "Explore its latent space in the browser; this needs pip install 'noumena[explore]'.",
        "noumena fit worldmodels/episodes data.path=YOUR.h5": "Train on films and actions of your own.",
    },
)
