/* Secret key files, plain and under a passphrase, and files of tenants: what others may have put there. */
#include <fcntl.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/memory.h"
#include "fuzz.h"
#include "hemi/params.h"
#include "secret/file.h"
#include "secret/seal.h"
#include "store/tenant_file.h"

static const hemi_params *params;
static uint8_t *plain, *sealed;
static size_t plain_bytes;
static char path[64];

void fuzz_start(void) {
    params = hemi_params_by_name("L4096");
    plain_bytes = hemi_secret_file_bytes(params);
    plain = calloc(plain_bytes, 1);
    sealed = calloc(plain_bytes + HEMI_SEAL_OVERHEAD, 1);
    const size_t n = hemi_secret_file_coefficients(params);
    int8_t *s = calloc(n, 1);
    if (!plain || !sealed || !s) abort();
    for (size_t i = 0; i < n; i++) s[i] = (int8_t)((int)(i % 3) - 1);
    hemi_secret_file_end(plain, hemi_secret_file_pack(hemi_secret_file_begin(plain, params), s, n));
    free(s);
    FUZZ_OK(hemi_seal(sealed, params, plain, plain_bytes, "p", 1, 8, FUZZ_ERR));
    snprintf(path, sizeof path, "/dev/shm/hemi-fuzz-tenants-%d", (int)getpid());
}

static void read_tenants(const fuzz_file *f) {
    hemi_error err = {0};
    hemi_store_tenant *tenants;
    size_t count;
    const int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, f->bytes, f->count) == (ssize_t)f->count);
    close(fd);
    const hemi_status status = hemi_tenant_file_read(path, &tenants, &count, &err);
    fuzz_check_error(status, &err);
    for (size_t i = 0; i < count; i++) FUZZ_CHECK(hemi_tenant_name_is_valid(tenants[i].name));
    free(tenants);
}

void fuzz_one(const uint8_t *data, size_t size) {
    const bool is_sealed = size > 0 && (data[0] >> 1 & 1);
    fuzz_file f = fuzz_make(data, size, is_sealed ? sealed : plain, plain_bytes + (is_sealed ? HEMI_SEAL_OVERHEAD : 0));
    hemi_error err = {0};
    int8_t *s = NULL;
    hemi_status status = hemi_secret_file_read(&s, params, f.bytes, f.count, &err);
    fuzz_check_error(status, &err);
    if (status == HEMI_OK) (void)!hemi_secret_check_ternary(s, hemi_secret_file_coefficients(params), &err);
    hemi_secure_free(s);
    /* what it may cost is bounded by the format (tests/test_seal.c); here by less, to get on */
    if (f.count > HEMI_SEAL_OVERHEAD && !(hemi_load32(f.bytes + 12) <= HEMI_SEAL_PASSES_MAX && hemi_load32(f.bytes + 16) > 64)) {
        uint8_t *out = malloc(f.count - HEMI_SEAL_OVERHEAD);
        status = hemi_seal_open(out, params, f.bytes, f.count, "p", &err);
        fuzz_check_error(status, &err);
        free(out);
    }
    if (size > 0 && data[0] % 2 == 0) read_tenants(&f);
    free(f.bytes);
}
