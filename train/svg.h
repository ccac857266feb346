/* Charts as inline SVG, drawn piece by piece into a file: axes, lines, bands, dots, reference lines, heat
 * maps. Colours come from CSS classes, so that one drawing serves a light and a dark page; lines c0..c5
 * differ in their dashes too. */
#ifndef CARACAL_TRAIN_SVG_H
#define CARACAL_TRAIN_SVG_H

#include <stdint.h>
#include <stdio.h>

enum {
    CHART_LABELS = 24,
    CHART_SAMPLE = 27, /* before a label's text, a piece of its line and a gap */
};

enum chart_x {
    CHART_X_COUNT, /* steps and the like, from a start */
    CHART_X_VALUE, /* any numbers; the name stands below them */
    CHART_X_LOG,   /* the same on a logarithmic scale */
};

typedef struct chart_label {
    double y; /* in the drawing */
    char class[24], text[64];
} chart_label;

typedef struct chart {
    FILE *out;
    double width, height;            /* of the drawing, in its own units (CSS pixels at full size) */
    double left, right, top, bottom; /* margins around the plot */
    double x0, x1, y0, y1;           /* what the plot's edges stand for */
    int log_y;
    enum chart_x x_scale;
    const char *x_name; /* what the x axis counts; NULL: steps */
    const char *y_name; /* stands upright left of the ticks, for which `left` leaves room; NULL: nothing */
    const char *head;   /* markup that comes first: a style, a background; NULL: none */
    double columns;     /* chart_heat: so many columns fill the width, the last one perhaps in part; 0: all */
    double marked;      /* up to here marker labels lie */
    int labels;
    chart_label label[CHART_LABELS];
} chart;

/* Positive values over more than a factor of 50 are read better on a logarithmic axis. */
int chart_wants_log(const chart *c);
/* Widens *low..*high to hold the finite values of y. */
void chart_range(int64_t n, const double *y, double *low, double *high);
/* Opens <svg class="...">, with `name` for those who do not see it, and draws grid and tick labels.  The
 * caller filled out, sizes, margins and ranges; degenerate ranges are widened here, and linear y ranges end
 * at ticks. */
void chart_begin(chart *c, const char *class, const char *name);
/* The same inside an <svg> that is open already, of which the margins leave a part. */
void chart_axes(chart *c);
/* A line through the points, broken where x or y is not finite; a lone point becomes a dot. */
void chart_line(chart *c, const char *class, int64_t n, const double *x, const double *y);
void chart_dots(chart *c, const char *class, int64_t n, const double *x, const double *y);
/* A ring ('o') around a point, a cross ('x') on it, or an arrow ('^') to what lies above the chart. */
void chart_symbol(chart *c, const char *class, char symbol, double x, double y);
/* The area between low and high. */
void chart_band(chart *c, const char *class, int64_t n, const double *x, const double *low,
                const double *high);
/* A dotted horizontal line with its label above it, at the plot's right: after the lines, which it would be
 * hidden by. */
void chart_rule(chart *c, double y, const char *label);
/* A vertical line with its label at the top, where there is room for it; nothing outside the plot. */
void chart_mark(chart *c, const char *class, double x, const char *label);
/* A label to the right of the plot, at the height of value y, after a piece of its line; labels make room for
 * one another. */
void chart_label_end(chart *c, const char *class, double y, const char *text);
/* Places the labels; chart_end closes the <svg> too. */
void chart_labels(chart *c);
void chart_end(chart *c);

/* A whole heat map up to chart_end: value [columns][rows] over the range x0..x1, row 0 at the bottom.  A
 * level is (value - low) / (high - low) in `levels` equal steps, drawn with class PREFIX and its number; NaN
 * stays empty. */
void chart_heat(chart *c, const char *class, const char *name, const char *prefix, int levels,
                int64_t columns, int64_t rows, const double *value, double low, double high);

/* A number as an axis or a headline shows it, with at most so many digits: 12.5k, 0.003, 2e-5. */
void number_text(double x, int digits, char text[32]);
/* Text with <, >, & and quotes made safe.  What no XML may hold, control characters and bytes that are not
 * UTF-8 (a name cut inside a character), becomes U+FFFD: for one of those a browser shows nothing of an SVG.
 */
void html_text(FILE *out, const char *text);

#endif
