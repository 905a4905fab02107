/* The tensors of a compiled module. */
#include "base/memory.h"
#include "fuzz.h"
#include "model/safetensors.h"

static uint8_t *base;
static size_t base_bytes;

void fuzz_start(void) {
    static const uint8_t data[64] = {1, 2, 3};
    const hemi_tensor tensors[] = {{.name = "weight", .dtype = "I16", .rank = 2, .dims = {4, 4}, .data = data, .bytes = 32},
                                   {.name = "bias", .dtype = "F64", .rank = 1, .dims = {4}, .data = data, .bytes = 32}};
    FUZZ_OK(hemi_safetensors_write(&base, &base_bytes, tensors, 2, FUZZ_ERR));
}

/* What is accepted lies in the file, and is the same when it is written and read again. */
void fuzz_one(const uint8_t *data, size_t size) {
    fuzz_file f = fuzz_make(data, size, base, base_bytes);
    hemi_error err = {0};
    static hemi_tensor tensors[HEMI_SAFETENSORS_COUNT_MAX], again[HEMI_SAFETENSORS_COUNT_MAX];
    size_t count, same;
    const hemi_status status = hemi_safetensors_read(tensors, &count, f.bytes, f.count, &err);
    fuzz_check_error(status, &err);
    if (status == HEMI_OK) {
        volatile uint8_t sum = 0;
        uint8_t *file;
        size_t bytes;
        for (size_t i = 0; i < count; i++) {
            FUZZ_CHECK(tensors[i].rank <= HEMI_SAFETENSORS_RANK_MAX);
            for (size_t b = 0; b < tensors[i].bytes; b++) sum = (uint8_t)(sum + tensors[i].data[b]);
        }
        if (count > 0 && hemi_safetensors_write(&file, &bytes, tensors, count, &err) == HEMI_OK) {
            FUZZ_OK(hemi_safetensors_read(again, &same, file, bytes, FUZZ_ERR));
            FUZZ_CHECK(same == count);
            hemi_free(file);
        }
    }
    free(f.bytes);
}
