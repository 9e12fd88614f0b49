"""Latent states of video and how actions change them: learned without labels, probed, and used to plan."""

from noumena.core.family import Family

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
)
