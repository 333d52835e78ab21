// The style sheet of a report's page.
//
//   page += "<style>" + std::string(kReportStyle) + "</style>";
//   // a run's colour: an element of class c0 … c7 sets --run
//   // a phase's colour: p-generate, p-score, …
#pragma once
#include <string_view>

namespace dsengine {

// The runs' colours can be told apart by the colour-blind (Okabe and Ito 2008, without their yellow).
inline constexpr std::string_view kReportStyle = R"css(
:root { --ink: #1f2430; --muted: #687082; --line: #e3e6ec; --panel: #fff; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1360px; padding: 24px 28px 60px; background: #f7f8fa; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 44px 0 4px; padding-top: 14px; border-top: 2px solid var(--ink); }
h2 small { font-weight: normal; color: var(--muted); font-size: 15px; }
h3 { font-size: 16px; margin: 28px 0 8px; }
h4, h5 { font-size: 12px; margin: 0 0 4px; color: var(--muted); font-weight: 600; }
header p { margin: 2px 0 10px; }
nav { margin-bottom: 18px; }
nav a { margin-right: 16px; color: #0060a8; }
.muted { color: var(--muted); font-size: 13px; }
.c0 { --run: #0072b2; } .c1 { --run: #d55e00; } .c2 { --run: #009e73; } .c3 { --run: #cc79a7; }
.c4 { --run: #e69f00; } .c5 { --run: #56b4e9; } .c6 { --run: #5b4a9c; } .c7 { --run: #4d4d4d; }
.tag { margin-right: 14px; overflow-wrap: anywhere; }
.tag i { display: inline-block; width: 11px; height: 11px; border-radius: 50%; background: var(--run); margin-right: 6px; }
.legend { margin: 0 0 12px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); gap: 14px; }
figure { margin: 0; padding: 10px 8px 4px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-weight: 600; padding-left: 8px; }
svg { display: block; width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--muted); }
svg .x { text-anchor: middle; } svg .y { text-anchor: end; }
svg .grid { stroke: var(--line); } svg .axis, svg .tick { stroke: #9aa1af; }
.run path { fill: none; stroke: var(--run); stroke-width: 1.4; stroke-linejoin: round; stroke-linecap: round; }
.run .faint { stroke-width: 1; opacity: 0.32; } .run .smooth { stroke-width: 2; }
.run .bar { stroke-width: 1.2; } .run circle { fill: var(--panel); stroke: var(--run); stroke-width: 1.8; }
details { margin-top: 12px; } summary { cursor: pointer; font-weight: 600; }
details > .charts { margin-top: 10px; }
.wide { width: fit-content; max-width: 100%; overflow-x: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 6px 12px; border-bottom: 1px solid var(--line); }
tr:last-child > td { border-bottom: 0; }
th { font-size: 12px; color: var(--muted); font-weight: 600; white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.numbers { width: auto; } .numbers td:nth-child(3n + 2), .numbers th[colspan] { border-left: 1px solid var(--line); }
.inner { width: auto; } .inner th, .inner td { border: 0; padding: 0 24px 0 0; }
.phases { margin-bottom: 14px; }
.stack { display: flex; height: 22px; margin: 4px 0; border-radius: 4px; overflow: hidden; min-width: 4px; }
.stack i { display: block; height: 100%; }
.phases ul { list-style: none; margin: 0; padding: 0; font-size: 13px; }
.phases li { display: inline-block; margin-right: 18px; white-space: nowrap; }
.phases li i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.p-generate { background: #4c78a8; } .p-score { background: #f2a541; } .p-actor { background: #54a24b; }
.p-critic { background: #b279a2; } .p-other { background: #b8bcc6; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; max-height: 22em; overflow-y: auto;
  font: 13px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.sample { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; margin-top: 10px; }
.prompt { color: var(--muted); }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(280px, 100%), 1fr)); gap: 14px; margin-top: 10px; }
.answers > div { border-left: 3px solid var(--line); padding-left: 10px; }
.config pre { max-height: none; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  margin-top: 8px; }
@media (max-width: 560px) { body { padding: 16px 12px 40px; font-size: 14px; } th, td { padding: 5px 8px; } }
)css";

}  // namespace dsengine
