/* What this processor can do, found once at start. */
#ifndef HEMI_BASE_CPU_H
#define HEMI_BASE_CPU_H

#include <stdbool.h>

bool hemi_cpu_has_avx2_fma(void);
bool hemi_cpu_has_avx512_ifma(void); /* F, DQ, BW, VL, IFMA and VBMI, and the system saves their registers */
bool hemi_cpu_has_avx512_vnni(void); /* and all of the above */
int hemi_cpu_count(void);            /* processors this process may use, at least 1 */
const char *hemi_cpu_name(void);     /* for reports: "Intel(R) Xeon(R) ..." */
double hemi_now_ms(void);            /* monotonic clock, for reports */

#endif
