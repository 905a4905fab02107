#include "client/keys_ckks.h"

#include <stdatomic.h>
#include <string.h>

#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "ckks/cipher.h"

typedef struct hemi_ckks_entry {
    uint32_t t;
    uint8_t *bytes;
} entry;

/* ---- what is needed */

/* The union of two increasing lists, or only its length. */
static size_t merge(uint32_t *out, const uint32_t *a, size_t a_count, const uint32_t *b, size_t b_count) {
    size_t i = 0, j = 0, n = 0;
    for (; i < a_count || j < b_count; n++) {
        const bool from_a = i < a_count && (j == b_count || a[i] <= b[j]), from_b = j < b_count && (i == a_count || b[j] <= a[i]);
        if (out) out[n] = from_a ? a[i] : b[j];
        i += from_a;
        j += from_b;
    }
    return n;
}

hemi_status hemi_ckks_need_add(hemi_ckks_need *need, const hemi_circuit_io *io, bool *more, hemi_error *err) {
    uint32_t all[HEMI_CKKS_KEYS_MAX - 1];
    const size_t count = merge(NULL, need->t, need->count, io->automorphism, io->automorphisms);
    *more = false;
    if (count > HEMI_CKKS_KEYS_MAX - 1)
        return hemi_fail(err, HEMI_ERR_LIMIT, "these modules take %zu key-switching keys together; one set of keys holds %d", count,
                         HEMI_CKKS_KEYS_MAX - 1);
    *more = count > need->count || io->limbs > need->limbs;
    (void)merge(all, need->t, need->count, io->automorphism, io->automorphisms);
    memcpy(need->t, all, count * sizeof *all);
    need->count = count;
    if (io->limbs > need->limbs) need->limbs = io->limbs;
    return HEMI_OK;
}

/* ---- what was made */

void hemi_ckks_store_clear(hemi_ckks_store *store) {
    for (size_t i = 0; i < store->count; i++) hemi_free(store->entry[i].bytes);
    hemi_free(store->entry);
    *store = (hemi_ckks_store){0};
}

/* The public key, which is over the base alone, stays. */
static void drop_smaller(hemi_ckks_store *store, uint32_t limbs) {
    size_t kept = 0;
    if (limbs <= store->limbs) return;
    for (size_t i = 0; i < store->count; i++)
        if (store->entry[i].t == HEMI_CKKS_KEY_PUBLIC)
            store->entry[kept++] = store->entry[i];
        else
            hemi_free(store->entry[i].bytes);
    store->count = kept;
    store->limbs = limbs;
}

static const uint8_t *find(const hemi_ckks_store *store, uint32_t t) {
    for (size_t i = 0; i < store->count; i++)
        if (store->entry[i].t == t) return store->entry[i].bytes;
    return NULL;
}

typedef struct making {
    const hemi_ckks_secret *secret;
    uint32_t limbs;
    entry *entry;
    size_t count;
    atomic_size_t done;
    atomic_int status;
    hemi_progress_fn progress;
    void *context;
} making;

static void make_step(void *context, size_t i, size_t worker) {
    making *m = context;
    if (atomic_load(&m->status) != HEMI_OK) return;
    const hemi_status s = hemi_ckks_secret_make_key(m->secret, m->limbs, m->entry[i].t, m->entry[i].bytes, NULL);
    if (s != HEMI_OK) atomic_store(&m->status, s);
    const size_t done = atomic_fetch_add(&m->done, 1) + 1;
    if (m->progress && worker == 0 && done < m->count) m->progress(m->context, "make keys", done, m->count); /* worker 0: the caller */
}

static hemi_status make(making *m, hemi_error *err) {
    hemi_team *team = m->count > 1 ? hemi_team_new(0) : NULL;
    if (m->progress) m->progress(m->context, "make keys", 0, m->count);
    hemi_team_run(team, m->count, make_step, m);
    hemi_team_free(team);
    const hemi_status s = atomic_load(&m->status);
    if (s != HEMI_OK) return hemi_fail(err, s, "evaluation keys of set %s could not be made", m->secret->ctx->params->name);
    if (m->progress) m->progress(m->context, "make keys", m->count, m->count);
    return HEMI_OK;
}

/* All entries that are not there yet. */
static hemi_status provide(hemi_ckks_store *store, making *m, const hemi_ckks_need *need, hemi_error *err) {
    entry *all = hemi_alloc(store->count + need->count + 1, sizeof *all);
    bool memory = all != NULL;
    for (size_t i = 0; i <= need->count && memory; i++) {
        const uint32_t t = i == 0 ? HEMI_CKKS_KEY_PUBLIC : need->t[i - 1];
        if (find(store, t)) continue;
        entry *e = &all[store->count + m->count++];
        *e = (entry){t, hemi_alloc(hemi_ckks_key_entry_bytes(m->secret->ctx->params, store->limbs, t), 1)};
        memory = e->bytes != NULL;
    }
    m->limbs = store->limbs;
    m->entry = all ? all + store->count : NULL;
    hemi_status s = memory ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu evaluation keys", need->count + 1);
    if (s == HEMI_OK && m->count > 0) s = make(m, err);
    if (s == HEMI_OK && m->count > 0) {
        if (store->count > 0) memcpy(all, store->entry, store->count * sizeof *all);
        hemi_free(store->entry);
        store->entry = all;
        store->count += m->count;
        return HEMI_OK;
    }
    for (size_t i = 0; i < m->count; i++) hemi_free(m->entry[i].bytes);
    hemi_free(all);
    return s;
}

/* An entry for `limbs` limbs out of one for at least as many: its first digits, and of each its first limbs and the special ones. The gadget does
 * not depend on how many limbs there are (secret/ckks.c). Returns where the next begins. */
static uint8_t *cut(uint8_t *out, const uint8_t *in, const hemi_params *p, uint32_t limbs, uint32_t from) {
    if (limbs == from || hemi_load32(in) == HEMI_CKKS_KEY_PUBLIC) {
        const size_t bytes = hemi_ckks_key_entry_bytes(p, limbs, hemi_load32(in));
        memcpy(out, in, bytes);
        return out + bytes;
    }
    const uint32_t digits = hemi_ckks_digits(p, limbs);
    const size_t part = hemi_ckks_poly_bytes(p, limbs), whole = hemi_ckks_poly_bytes(p, from);
    const size_t specials = (hemi_ckks_key_entry_bytes(p, limbs, HEMI_CKKS_KEY_PRODUCT) - HEMI_KEY_ENTRY_HEADER_BYTES) / digits - part;
    memcpy(out, in, HEMI_KEY_ENTRY_HEADER_BYTES);
    out += HEMI_KEY_ENTRY_HEADER_BYTES;
    in += HEMI_KEY_ENTRY_HEADER_BYTES;
    for (uint32_t d = 0; d < digits; d++) {
        memcpy(out, in, part);
        memcpy(out + part, in + whole, specials);
        out += part + specials;
        in += whole + specials;
    }
    return out;
}

hemi_status hemi_ckks_store_keys(hemi_ckks_store *store, const hemi_ckks_secret *secret, const hemi_ckks_need *need, hemi_progress_fn progress,
                                 void *context, uint8_t **bytes, size_t *length, hemi_error *err) {
    const hemi_params *p = secret->ctx->params;
    making m = {.secret = secret, .progress = progress, .context = context};
    *bytes = NULL;
    *length = 0;
    if (need->limbs == 0 || need->limbs > p->chain)
        return hemi_fail(err, HEMI_ERR_ARGUMENT, "keys for %u limbs: set %s has 1 to %u", need->limbs, p->name, p->chain);
    drop_smaller(store, need->limbs);
    HEMI_TRY(provide(store, &m, need, err));
    const size_t total = hemi_ckks_keys_bytes(p, need->limbs, need->count + 1);
    uint8_t *out = hemi_alloc(total, 1), *at = out + HEMI_CKKS_KEYS_HEADER_BYTES;
    if (!out) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu bytes of evaluation keys", total);
    hemi_ckks_keys_write_header(out, p, need->limbs, need->count + 1);
    at = cut(at, find(store, HEMI_CKKS_KEY_PUBLIC), p, need->limbs, store->limbs);
    for (size_t i = 0; i < need->count; i++) at = cut(at, find(store, need->t[i]), p, need->limbs, store->limbs);
    *bytes = out;
    *length = total;
    return HEMI_OK;
}
