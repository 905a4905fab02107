#include "base/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool avx2_fma, avx512_ifma, avx512_vnni;
static char name[64] = "unknown processor";

/* __builtin_cpu_supports also asks whether the system saves the registers (XGETBV). */
static void find(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    avx2_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    avx512_ifma = avx2_fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vbmi");
    avx512_vnni = avx512_ifma && __builtin_cpu_supports("avx512vnni");
    unsigned brand[13] = {0};
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) < 0x80000004u) return;
    for (unsigned i = 0; i < 3; i++)
        __cpuid(0x80000002u + i, brand[4 * i], brand[4 * i + 1], brand[4 * i + 2], brand[4 * i + 3]);
    const char *text = (const char *)brand;
    while (*text == ' ') text++;
    if (*text) snprintf(name, sizeof name, "%s", text);
    for (size_t end = strlen(name); end > 0 && name[end - 1] == ' '; end--) name[end - 1] = '\0';
#endif
}

bool hemi_cpu_has_avx2_fma(void) {
    pthread_once(&once, find);
    return avx2_fma;
}

bool hemi_cpu_has_avx512_ifma(void) {
    pthread_once(&once, find);
    return avx512_ifma;
}

bool hemi_cpu_has_avx512_vnni(void) {
    pthread_once(&once, find);
    return avx512_vnni;
}

const char *hemi_cpu_name(void) {
    pthread_once(&once, find);
    return name;
}

/* The share of processor time a container grants (cgroup 2), rounded up to processors; 0: no limit. */
static long granted_processors(void) {
    long quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!f) return 0;
    const bool limited = fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0; /* or "max ..." */
    fclose(f);
    return limited ? (quota - 1) / period + 1 : 0;
}

int hemi_cpu_count(void) {
    cpu_set_t set;
    long count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    const long granted = granted_processors();
    if (granted > 0 && granted < count) count = granted;
    return count < 1 ? 1 : (int)count;
}

double hemi_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}
