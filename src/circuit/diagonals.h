/* The diagonals of a map, and how they are split. Internal to the room. */
#ifndef HEMI_CIRCUIT_DIAGONALS_H
#define HEMI_CIRCUIT_DIAGONALS_H

#include "circuit/plan.h"

/* Sets out from the map's entries and the places of both values. copies > 1: of the source; sets plan->skew and stride if that is possible; otherwise
 * ERR_UNSUPPORTED, without a message. */
HEMI_CHECK hemi_status hemi_diagonals_make(hemi_circuit_diagonals *out, hemi_circuit_plan *plan, const hemi_sparse *map,
                                           const hemi_value_plan *source, const hemi_value_plan *target, uint32_t copies, hemi_error *err);
void hemi_diagonals_clear(hemi_circuit_diagonals *d);
/* The steps after giant g's sum was added, to the next giant (or, after the last, to 0). */
size_t hemi_diagonals_giant_steps(int32_t steps[32], const hemi_circuit_diagonals *d, size_t giant);
/* Where a number is. */
static inline uint32_t hemi_place(const hemi_value_plan *v, uint32_t e) { return v->place ? v->place[e] : e; }

#endif
