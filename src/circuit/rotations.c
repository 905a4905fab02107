#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "circuit/plan.h"

/* The binary digits of |r|, largest first. */
static size_t binary_steps(int32_t steps[32], int32_t r) {
    const uint32_t magnitude = (uint32_t)(r < 0 ? -(int64_t)r : r);
    size_t count = 0;
    for (int b = 30; b >= 0; b--)
        if (magnitude >> b & 1) steps[count++] = (int32_t)((r < 0 ? -1 : 1) * (INT64_C(1) << b));
    return count;
}

/* The non-adjacent form: the fewest signed powers of two, largest first. */
size_t hemi_rotation_steps(int32_t steps[32], int32_t r) {
    int32_t reversed[32];
    size_t count = 0;
    int64_t v = r;
    for (int b = 0; v != 0; b++, v /= 2) {
        if (v % 2 == 0) continue;
        const int64_t digit = ((v % 4) + 4) % 4 == 1 ? 1 : -1;
        reversed[count++] = (int32_t)(digit * (INT64_C(1) << b));
        v -= digit;
    }
    for (size_t i = 0; i < count; i++) steps[i] = reversed[count - 1 - i];
    return count;
}

static size_t find(const hemi_rotation_tree *t, int32_t by) {
    size_t i = 0;
    while (i < t->count && t->by[i] != by) i++;
    return i;
}

/* Elements are added one after the other, each with what is missing of its path. */
static bool build(hemi_rotation_tree *t, const int32_t *by, size_t count, size_t (*decompose)(int32_t *, int32_t)) {
    *t = (hemi_rotation_tree){.by = hemi_alloc(32 * count + 1, sizeof *t->by), .parent = hemi_alloc(32 * count + 1, sizeof *t->parent)};
    if (!t->by || !t->parent) return false;
    t->count = 1;
    for (size_t i = 0; i < count; i++) {
        int32_t steps[32], at = 0;
        const size_t length = decompose(steps, by[i]);
        for (size_t j = 0, node = 0; j < length; j++) {
            at += steps[j];
            const size_t next = find(t, at);
            if (next == t->count) {
                t->by[next] = at;
                t->parent[next] = (uint32_t)node;
                t->count++;
            }
            node = next;
        }
    }
    return true;
}

static size_t distinct_edges(const hemi_rotation_tree *t) {
    size_t distinct = 0;
    for (size_t i = 1; i < t->count; i++) {
        bool first = true;
        for (size_t j = 1; j < i && first; j++) first = hemi_rotation_edge(t, j) != hemi_rotation_edge(t, i);
        distinct += first;
    }
    return distinct;
}

/* The better of two ways: fewer rotations, then fewer keys. */
hemi_status hemi_rotation_tree_make(hemi_rotation_tree *tree, const int32_t *by, size_t count, hemi_error *err) {
    hemi_rotation_tree other = {0};
    if (!build(tree, by, count, binary_steps) || !build(&other, by, count, hemi_rotation_steps)) {
        hemi_rotation_tree_clear(tree);
        hemi_rotation_tree_clear(&other);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for the rotations of a map");
    }
    if (other.count < tree->count || (other.count == tree->count && distinct_edges(&other) < distinct_edges(tree))) {
        const hemi_rotation_tree swap = *tree;
        *tree = other;
        other = swap;
    }
    hemi_rotation_tree_clear(&other);
    return HEMI_OK;
}

void hemi_rotation_tree_clear(hemi_rotation_tree *t) {
    hemi_free(t->by);
    hemi_free(t->parent);
    *t = (hemi_rotation_tree){0};
}
