/* What has to happen in the browser itself: counting moves, playing a path. */
window.dash_clientside = Object.assign({}, window.dash_clientside, {
  explore: (function () {
    var count = 0;
    return {
      // Numbered, so that the server knows the last of several moves that are on their way.
      moves: function (values, chosen) {
        if (!values.length || values.some(function (value) { return typeof value !== "number"; })) {
          return window.dash_clientside.no_update;
        }
        count += 1;
        return { values: values, count: count, chosen: chosen };
      },
      play: function (clicks, path, stopped) {
        var pressed = window.dash_clientside.callback_context.triggered_id === "play";
        return pressed && stopped ? [false, "Pause"] : [true, "Play"];
      },
      advance: function (ticks, step, last) {
        return step >= last ? 1 : step + 1;
      }
    };
  })()
});
window.dccFunctions = Object.assign({}, window.dccFunctions, {
  fourDigits: function (value) { return Number(value).toPrecision(4); }
});
