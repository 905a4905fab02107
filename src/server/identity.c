#include "server/identity.h"

#include <sodium.h>
#include <string.h>

void hemi_tenant_slot(uint8_t *slot, size_t slot_bytes, const hemi_tenant *tenant, const uint8_t *id, size_t id_bytes) {
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, slot_bytes);
    (void)crypto_generichash_update(&state, (const uint8_t *)tenant->name, strlen(tenant->name) + 1); /* a name holds no NUL */
    (void)crypto_generichash_update(&state, id, id_bytes);
    (void)crypto_generichash_final(&state, slot, slot_bytes);
}
