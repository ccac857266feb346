/* The colours and type of the report.  One accent for training, one for validation, greys for the rest; both
 * schemes define the same names. */
#include "train/report_parts.h"

#include <string.h>

const char report_chart_style[] =
    ":root{color-scheme:light dark;"
    "--page:#fdfdfc;--ink:#1c1e21;--quiet:#6a6f76;--line:#e7e8e9;--bad:#b3261e;--train:#2458b8;--valid:#"
    "bf5313;"
    "--c0:#2458b8;--c1:#bf5313;--c2:#0c7a62;--c3:#8446ad;--c4:#8c6a00;--c5:#b92c66;"
    "--s0:#eef3fa;--s1:#d7e3f4;--s2:#b9cfec;--s3:#95b5e1;--s4:#6f97d3;--s5:#4b79c2;--s6:#2d5ba8;--s7:#183f80;"
    "--d0:#1f5fa8;--d1:#5b90c9;--d2:#9bbfe2;--d3:#d2e2f1;--d4:#f1f1ef;--d5:#f6dcc5;--d6:#eab07c;--d7:#d57f3a;"
    "--d8:#a9530f}\n"
    "@media (prefers-color-scheme:dark){:root{"
    "--page:#15171a;--ink:#e6e5e2;--quiet:#979ca3;--line:#2a2d31;--bad:#f2746b;--train:#7ba6f7;--valid:#"
    "f2955c;"
    "--c0:#7ba6f7;--c1:#f2955c;--c2:#52c4a3;--c3:#c497ec;--c4:#d7ac4b;--c5:#f285ae;"
    "--s0:#1d232c;--s1:#20304a;--s2:#264063;--s3:#305381;--s4:#40699f;--s5:#5683bf;--s6:#78a2dc;--s7:#a9caf8;"
    "--d0:#7db4f5;--d1:#4c84c4;--d2:#31598a;--d3:#27394f;--d4:#24282c;--d5:#4d3722;--d6:#86562a;--d7:#c47b36;"
    "--d8:#f7aa5c}}\n"
    "svg{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;font-variant-numeric:"
    "tabular-nums}\n"
    ".grid{stroke:var(--line);fill:none}\n"
    ".tick,.note{fill:var(--quiet);font-size:11px}\n"
    ".note{paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}\n"
    ".label{font-size:12px;font-weight:500}\n"
    ".head{fill:var(--ink);font-size:15px;font-weight:600}\n"
    ".paper{fill:var(--page)}\n"
    ".rule{stroke:var(--quiet);stroke-dasharray:1.5 3;fill:none}\n"
    "path.raw,path.train,path.valid,path.c0,path.c1,path.c2,path.c3,path.c4,path.c5{fill:none;stroke-width:1."
    "6;"
    "stroke-linejoin:round;stroke-linecap:round}\n"
    "path.c1{stroke-dasharray:8 5}path.c2{stroke-dasharray:1 4}path.c3{stroke-dasharray:8 4 1 4}"
    "path.c4{stroke-dasharray:3 5}path.c5{stroke-dasharray:8 4 1 4 1 4}path.solid{stroke-dasharray:none}\n"
    "path.thick{stroke-width:3.2}path.dots{stroke-dasharray:0 99;stroke-dashoffset:-17;stroke-width:5}\n"
    "path.raw{stroke:var(--train);stroke-width:1;opacity:.3}\n"
    "path.band{fill:var(--train);opacity:.16}\n"
    "path.train{stroke:var(--train)}.label.train,circle.train{fill:var(--train)}\n"
    "path.valid{stroke:var(--valid)}.label.valid,circle.valid{fill:var(--valid)}\n"
    "path.c0{stroke:var(--c0)}.label.c0{fill:var(--c0)}path.c1{stroke:var(--c1)}.label.c1{fill:var(--c1)}\n"
    "path.c2{stroke:var(--c2)}.label.c2{fill:var(--c2)}path.c3{stroke:var(--c3)}.label.c3{fill:var(--c3)}\n"
    "path.c4{stroke:var(--c4)}.label.c4{fill:var(--c4)}path.c5{stroke:var(--c5)}.label.c5{fill:var(--c5)}\n"
    "circle.c0,path.b0{fill:var(--c0)}circle.c1,path.b1{fill:var(--c1)}circle.c2,path.b2{fill:var(--c2)}"
    "circle.c3,path.b3{fill:var(--c3)}circle.c4,path.b4{fill:var(--c4)}circle.c5,path.b5{fill:var(--c5)}"
    "path.b0,path.b1,path.b2,path.b3,path.b4,path.b5{opacity:.18}\n";

const char report_page_style[] =
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:1180px;padding:40px 24px 64px;background:var(--page);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;"
    "-webkit-text-size-adjust:100%}\n"
    "h1{font-size:28px;line-height:1.2;font-weight:650;letter-spacing:-.01em;margin:0 0 4px;"
    "overflow-wrap:anywhere}\n"
    "h2{font-size:18px;font-weight:600;margin:44px 0 16px;padding-top:16px;border-top:1px solid "
    "var(--line)}\n"
    "h3{font-size:15px;font-weight:600;margin:0}\n"
    "p{margin:0;color:var(--quiet);max-width:44em}\n"
    "dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(116px,1fr));gap:20px 24px;margin:28px 0 "
    "36px}\n"
    "dt{color:var(--quiet);font-size:13px}\n"
    "dd{margin:0;font-size:22px;font-weight:600;letter-spacing:-.01em;font-variant-numeric:tabular-nums;"
    "white-space:nowrap}\n"
    "dd small{font-size:13px;font-weight:400;color:var(--quiet);letter-spacing:0}\n"
    "figure{margin:0;display:flex;flex-direction:column}\n"
    "figcaption{margin-bottom:8px;flex:1}\n"
    "figcaption p{font-size:13px;line-height:1.45;margin-top:2px}\n"
    ".top{display:flex;justify-content:space-between;align-items:baseline;gap:12px}\n"
    ".now{color:var(--quiet);font-size:13px;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    ".three{display:grid;gap:36px 40px;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}\n"
    "svg{display:block;width:100%;height:auto;overflow:visible}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:20px 0 28px;display:block;"
    "overflow-x:auto;max-width:100%}\n"
    "th{font-weight:500;color:var(--quiet);font-size:13px}\n"
    "th,td{text-align:right;padding:5px 0 5px 24px;border-bottom:1px solid var(--line);white-space:nowrap}\n"
    "th:first-child,td:first-child{text-align:left;padding-left:0}\n"
    "td i{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:8px}\n"
    "i.c0{background:var(--c0)}i.c1{background:var(--c1)}i.c2{background:var(--c2)}i.c3{background:var(--c3)}"
    "i.c4{background:var(--c4)}i.c5{background:var(--c5)}\n"
    ".scale{display:flex;align-items:center;gap:6px;color:var(--quiet);font-size:11px;margin-top:6px}\n"
    ".scale i{width:20px;height:9px;margin-right:-6px}.scale i:last-of-type{margin-right:0}\n"
    ".s0{fill:var(--s0);background:var(--s0)}.s1{fill:var(--s1);background:var(--s1)}"
    ".s2{fill:var(--s2);background:var(--s2)}.s3{fill:var(--s3);background:var(--s3)}"
    ".s4{fill:var(--s4);background:var(--s4)}.s5{fill:var(--s5);background:var(--s5)}"
    ".s6{fill:var(--s6);background:var(--s6)}.s7{fill:var(--s7);background:var(--s7)}\n"
    ".d0{fill:var(--d0);background:var(--d0)}.d1{fill:var(--d1);background:var(--d1)}"
    ".d2{fill:var(--d2);background:var(--d2)}.d3{fill:var(--d3);background:var(--d3)}"
    ".d4{fill:var(--d4);background:var(--d4)}.d5{fill:var(--d5);background:var(--d5)}"
    ".d6{fill:var(--d6);background:var(--d6)}.d7{fill:var(--d7);background:var(--d7)}"
    ".d8{fill:var(--d8);background:var(--d8)}\n"
    ".status{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 10px;margin:20px 0 0;font-size:15px;"
    "font-variant-numeric:tabular-nums}\n"
    ".status b{font-weight:600}.status b::before{content:'';display:inline-block;width:9px;height:9px;"
    "border-radius:50%;background:var(--state);margin-right:8px}\n"
    ".status span{color:var(--quiet)}.status i{font-style:normal}\n"
    ".status,.finished{--state:var(--c2)}.running{--state:var(--train)}.stopped{--state:var(--c4)}"
    ".failed,.lost{--state:var(--bad)}\n"
    ".gone,.lost .live{display:none}.lost .gone{display:inline}\n"
    ".bar{width:100%;height:4px;border-radius:2px;background:var(--line);margin-top:6px;overflow:hidden}"
    ".bar i{display:block;height:100%;background:var(--state)}\n"
    ".status+p{margin-top:8px}.warning{margin-top:12px;color:var(--bad)}\n"
    ".middle,.narrow{display:none}\n"
    "@media (max-width:1000px){.wide{display:none}.middle{display:block}}\n"
    "@media (max-width:620px){.middle{display:none}.narrow{display:block}body{padding:24px 16px 48px}"
    "h2{margin-top:40px}dl{grid-template-columns:1fr 1fr;gap:14px 16px}}\n"
    "@media print{body{padding:0}figure{break-inside:avoid}}\n";

/* The value of --name, by its first definition. */
static const char *variable(const char *name, size_t n) {
    for (const char *p = report_chart_style; (p = strstr(p, "--")); p += 2)
        if (!strncmp(p + 2, name, n) && p[2 + n] == ':') return p + 3 + n;
    return "";
}

void report_paper_style(FILE *out) {
    static const char use[] = "var(--";
    for (const char *p = strstr(report_chart_style, "\nsvg{"); *p; p++) {
        if (strncmp(p, use, strlen(use))) {
            putc(*p, out);
            continue;
        }
        const char *name = p + strlen(use);
        size_t n = strcspn(name, ")");
        const char *value = variable(name, n);
        fprintf(out, "%.*s", (int)strcspn(value, ";}"), value);
        p = name + n;
    }
}
