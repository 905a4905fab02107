/* ONNX, by both importers: of linear maps, and of circuits. */
#include "fuzz.h"
#include "model/circuit_import.h"
#include "model/onnx.h"

void fuzz_start(void) {}

void fuzz_one(const uint8_t *data, size_t size) {
    static const uint32_t shapes[][4] = {{4, 8}, {2, 3, 6, 6}, {2, 5, 8}};
    static const size_t ranks[] = {2, 4, 3};
    const int which = size > 0 ? data[0] % 3 : 0;
    fuzz_file f = fuzz_exact(size ? data + 1 : data, size ? size - 1 : 0);
    hemi_error err = {0};
    hemi_affine map;
    hemi_circuit *circuit = NULL;
    hemi_status status = hemi_onnx_import(&map, f.bytes, f.count, shapes[which], ranks[which], NULL, NULL, &err);
    fuzz_check_error(status, &err);
    if (status == HEMI_OK) hemi_affine_free(&map);
    if (hemi_circuit_is_needed(f.bytes, f.count)) {
        status = hemi_circuit_import(&circuit, f.bytes, f.count, shapes[which], ranks[which], 8, NULL, NULL, &err);
        fuzz_check_error(status, &err);
        hemi_circuit_free(circuit);
    }
    free(f.bytes);
}
