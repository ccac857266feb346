#include "train/status.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "data/utf8.h"
#include "launch/files.h"
#include "launch/progress.h"
#include "train/console.h"
#include "train/json_number.h"
#include "train/svg.h"
#include "train/whole_file.h"

static const char *const names[] = {"unknown", "running", "finished", "stopped", "failed"};
enum { STATES = sizeof names / sizeof *names };

double status_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- the file ---- */

void status_read(run_status *s, const char *run_dir) {
    char path[4200];
    snprintf(path, sizeof path, "%s/status.json", run_dir);
    *s = (run_status){0};
    const char *unread;
    FILE *file = open_text(path, &unread);
    json_t *j = file ? json_loadf(file, 0, NULL) : NULL;
    if (file) fclose(file);
    const char *state = json_string_value(json_object_get(j, "state")),
               *why = json_string_value(json_object_get(j, "why"));
    for (int i = 0; state && i < STATES; i++)
        if (!strcmp(state, names[i])) s->state = i;
    s->step = json_integer_value(json_object_get(j, "step"));
    s->steps = json_integer_value(json_object_get(j, "steps"));
    s->at = json_finite_of(j, "at");
    s->every = json_finite_of(j, "every");
    s->patience = json_finite_of(j, "patience");
    s->left = json_finite_of(j, "left");
    snprintf(s->why, sizeof s->why, "%s", why ? why : "");
    int known = s->state != RUN_RUNNING || (isfinite(s->every) && isfinite(s->patience));
    if (!isfinite(s->at) || !known) s->state = RUN_UNKNOWN;
    json_decref(j);
}

static void write_json(FILE *out, const void *data) {
    const run_status *s = data;
    json_t *j = json_pack("{s:s, s:I, s:I, s:f}", "state", names[s->state], "step", (json_int_t)s->step,
                          "steps", (json_int_t)s->steps, "at", s->at);
    if (s->state == RUN_RUNNING) {
        json_object_set_new(j, "every", json_real(s->every));
        json_object_set_new(j, "patience", json_real(s->patience));
        if (isfinite(s->left)) json_object_set_new(j, "left", json_real(s->left));
    }
    size_t why = utf8_valid_prefix(s->why, strlen(s->why)); /* it may be cut inside a character */
    if (why) json_object_set_new(j, "why", json_stringn(s->why, why));
    json_dumpf(j, out, JSON_INDENT(2) | JSON_REAL_PRECISION(13));
    putc('\n', out);
    json_decref(j);
}

int status_write(const run_status *s, const char *run_dir, error *e) {
    char path[4200];
    snprintf(path, sizeof path, "%s/status.json", run_dir);
    return whole_file(path, write_json, s, e);
}

/* ---- in words ---- */

int status_lost(const run_status *s, double now) {
    return s->state == RUN_RUNNING && now - s->at > s->patience;
}

/* In the reader's own time, where the script may run. */
static void print_time(FILE *out, double at) {
    time_t seconds = (time_t)at;
    struct tm tm;
    char text[64] = "";
    if (gmtime_r(&seconds, &tm)) strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
    fprintf(out, "<time>%s</time>", text);
}

/* Old pages of a run that does not write any more keep looking for a new one for an hour: it may be resumed.
 */
static const char script[] =
    "<script>\n(function(){var s=document.querySelector('.status'),d=s.dataset,age=Date.now()/1e3-d.at,"
    "old=age>+d.patience;\n"
    "s.querySelector('time').textContent=new Date(d.at*1e3).toLocaleString();\n"
    "if(!s.classList.contains('running'))return;\n"
    "if(old)s.className='status lost';\n"
    "if(age<3600+ +d.patience)setTimeout(function(){location.reload()},1e3*(old?60:Math.max(2,+d.every)));"
    "})()\n</script>\n";

/* What a page says while it is young stands in class live, what it says later in class gone. */
static void html_running(FILE *out, const run_status *s) {
    char left[32];
    fprintf(out, "<b class=\"live\">%s</b><b class=\"gone\">Crashed, or %s</b>",
            s->step ? "Running" : "Starting", s->step ? "stuck" : "still starting");
    fprintf(out, "<span>step %lld of %lld", (long long)s->step, (long long)s->steps);
    if (isfinite(s->left)) fprintf(out, "<i class=\"live\">, ETA %s</i>", progress_duration(left, s->left));
    fputs("; <i class=\"gone\">last sign of life </i>", out);
}

static void html_ended(FILE *out, const run_status *s) {
    fprintf(out, "<b>%s</b>",
            s->state == RUN_FINISHED  ? "Finished"
            : s->state == RUN_STOPPED ? "Stopped"
                                      : "Failed");
    fprintf(out, "<span>step %lld of %lld; ", (long long)s->step, (long long)s->steps);
}

void status_html(FILE *out, const run_status *s, double now) {
    if (s->state == RUN_UNKNOWN) return;
    fprintf(out, "<div class=\"status %s\" data-at=\"%.0f\"", status_lost(s, now) ? "lost" : names[s->state],
            s->at);
    if (s->state == RUN_RUNNING)
        fprintf(out, " data-every=\"%.0f\" data-patience=\"%.0f\"", s->every, s->patience);
    putc('>', out);
    if (s->state == RUN_RUNNING) html_running(out, s);
    else html_ended(out, s);
    print_time(out, s->at);
    fputs("</span>", out);
    if (s->steps > 0)
        fprintf(out, "<div class=\"bar\"><i style=\"width:%.1f%%\"></i></div>",
                fmin(100.0 * (double)s->step / (double)s->steps, 100));
    fputs("</div>\n", out);
    if (s->why[0]) {
        fputs("<p>", out);
        html_text(out, s->why);
        fputs("</p>\n", out);
    }
    fputs(script, out);
}
