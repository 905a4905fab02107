#include "circuit/diagonals.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

void hemi_diagonals_clear(hemi_circuit_diagonals *d) {
    hemi_free(d->diagonal);
    hemi_free(d->baby);
    hemi_free(d->giant);
    hemi_free(d->node);
    hemi_rotation_tree_clear(&d->tree);
    *d = (hemi_circuit_diagonals){0};
}

/* Which residues modulo w occur. */
static void mark(uint8_t *seen, uint32_t w, const hemi_sparse *map, const hemi_value_plan *source, const hemi_value_plan *target) {
    for (uint32_t o = 0; o < map->rows; o++) {
        const uint32_t p = hemi_place(target, o) % target->period;
        const uint64_t from = map->column ? map->start[o] : 0, to = map->column ? map->start[o + 1] : map->columns;
        for (uint64_t i = from; i < to; i++) {
            const uint32_t e = map->column ? map->column[i] : (uint32_t)i;
            seen[(hemi_place(source, e) % source->period - p) & (w - 1)] = 1;
        }
    }
}

/* ---- splitting */

typedef struct split {
    size_t babies, giants;
    int32_t *baby, *giant; /* increasing */
} split;

static int32_t baby_of(int32_t d, uint32_t step, bool centred) {
    const int32_t s = (int32_t)step, b = ((d % s) + s) % s;
    return centred && b > s / 2 ? b - s : b;
}

static int compare(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

static size_t unique(int32_t *x, size_t count) {
    size_t kept = 0;
    qsort(x, count, sizeof *x, compare);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || x[kept - 1] != x[i]) x[kept++] = x[i];
    return kept;
}

static void split_by(split *s, const int32_t *diagonal, size_t count, uint32_t step, bool centred) {
    for (size_t i = 0; i < count; i++) {
        s->baby[i] = baby_of(diagonal[i], step, centred);
        s->giant[i] = diagonal[i] - s->baby[i];
    }
    s->babies = unique(s->baby, count);
    s->giants = unique(s->giant, count);
}

size_t hemi_diagonals_giant_steps(int32_t steps[32], const hemi_circuit_diagonals *d, size_t giant) {
    const int32_t next = giant + 1 < d->giants ? d->giant[giant + 1] : 0;
    return hemi_rotation_steps(steps, d->giant[giant] - next);
}

static size_t giant_rotations(const split *s) {
    int32_t steps[32];
    size_t sum = 0;
    for (size_t i = 0; i < s->giants; i++) sum += hemi_rotation_steps(steps, s->giant[i] - (i > 0 ? s->giant[i - 1] : 0));
    return sum;
}

/* Diagonals in [0, w) or around 0, the step, and on which side babies lie: what takes the fewest rotations. */
static hemi_status choose(hemi_circuit_diagonals *d, split *s, hemi_error *err) {
    size_t best = SIZE_MAX;
    bool best_around = false;
    int32_t *around = hemi_alloc(d->count, sizeof *around);
    if (!around) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu diagonals", d->count);
    for (size_t i = 0; i < d->count; i++) around[i] = d->diagonal[i] > (int32_t)(d->w / 2) ? d->diagonal[i] - (int32_t)d->w : d->diagonal[i];
    qsort(around, d->count, sizeof *around, compare);
    for (unsigned way = 0; way < 4; way++)
        for (uint32_t step = 1; step <= d->w; step *= 2) {
            split_by(s, way & 1 ? around : d->diagonal, d->count, step, way & 2);
            hemi_rotation_tree tree;
            if (s->babies > best || s->giants > best) continue; /* each takes a rotation, but for one */
            const hemi_status status = hemi_rotation_tree_make(&tree, s->baby, s->babies, err);
            if (status != HEMI_OK) {
                hemi_free(around);
                return status;
            }
            const size_t rotations = tree.count - 1 + giant_rotations(s);
            hemi_rotation_tree_clear(&tree);
            if (rotations >= best) continue;
            best = rotations;
            best_around = way & 1;
            d->step = step;
            d->centred = way & 2;
        }
    if (best_around) memcpy(d->diagonal, around, d->count * sizeof *around);
    hemi_free(around);
    return HEMI_OK;
}

static hemi_status set_split(hemi_circuit_diagonals *d, hemi_error *err) {
    split s = {.baby = hemi_alloc(d->count, sizeof *s.baby), .giant = hemi_alloc(d->count, sizeof *s.giant)};
    hemi_status status = s.baby && s.giant ? choose(d, &s, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu diagonals", d->count);
    if (status == HEMI_OK) {
        split_by(&s, d->diagonal, d->count, d->step, d->centred);
        for (size_t i = 0; i < s.giants / 2; i++) {
            const int32_t swap = s.giant[i];
            s.giant[i] = s.giant[s.giants - 1 - i];
            s.giant[s.giants - 1 - i] = swap;
        }
        d->babies = s.babies;
        d->giants = s.giants;
        status = hemi_rotation_tree_make(&d->tree, s.baby, s.babies, err);
    }
    d->baby = s.baby;
    d->giant = s.giant;
    if (status != HEMI_OK) return status;
    d->node = hemi_alloc(d->babies, sizeof *d->node);
    if (!d->node) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu rotations", d->babies);
    for (size_t i = 0; i < d->babies; i++)
        while (d->tree.by[d->node[i]] != d->baby[i]) d->node[i]++;
    return HEMI_OK;
}

/* ---- copies */

/* The diagonals d become those of one copy, and skew[k] what copy k is shifted by:
 *   at most c: copy k takes diagonal number k, without any rotation;
 *   all w of them: copy k takes k w/c + i, i < w/c. A slot near a copy's end that sees the next one's begin finds another diagonal there,
 *   and all of them do so alike: each diagonal is still met once. */
static bool part_between_copies(hemi_circuit_diagonals *d, uint32_t *skew, uint32_t copies) {
    if (d->count <= copies) {
        for (size_t k = 0; k < copies; k++) skew[k] = k < d->count ? (uint32_t)d->diagonal[k] : HEMI_CIRCUIT_NO_PLACE;
        d->count = 1;
        d->diagonal[0] = 0;
        return true;
    }
    if (d->count != d->w || copies > d->w) return false;
    for (uint32_t k = 0; k < copies; k++) skew[k] = k * (d->w / copies);
    d->count = d->w / copies;
    return true;
}

hemi_status hemi_diagonals_make(hemi_circuit_diagonals *d, hemi_circuit_plan *plan, const hemi_sparse *map, const hemi_value_plan *source,
                                const hemi_value_plan *target, uint32_t copies, hemi_error *err) {
    const uint32_t t = source->period, u = target->period, larger = t > u ? t : u;
    *d = (hemi_circuit_diagonals){.w = t < u ? t : u};
    uint8_t *seen = hemi_alloc(d->w, 1);
    d->diagonal = hemi_alloc(d->w, sizeof *d->diagonal);
    if (!seen || !d->diagonal) {
        hemi_free(seen);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %u diagonals", d->w);
    }
    mark(seen, d->w, map, source, target);
    for (uint32_t i = 0; i < d->w; i++)
        if (seen[i]) d->diagonal[d->count++] = (int32_t)i;
    hemi_free(seen);
    if (d->count == 0) d->diagonal[d->count++] = 0; /* a map without entries is a product with zeros */
    if (copies > 1) {
        if (larger * (uint64_t)copies > plan->slots || !part_between_copies(d, plan->skew, copies)) return HEMI_ERR_UNSUPPORTED;
        plan->stride = larger;
    }
    for (uint32_t f = u; f < t; f *= 2) d->fold[d->folds++] = f;
    for (uint32_t c = 1; c < copies; c *= 2) d->fold[d->folds++] = larger * c;
    return set_split(d, err);
}
