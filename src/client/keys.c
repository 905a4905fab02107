#include "client/keys.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "model/module.h"
#include "secret/seal.h"
#include "wire/wire.h"

#define SETS_MAX 16

/* One entry of evaluation keys, kept so that the same request gives the same bytes. */
typedef struct entry {
    uint32_t t;
    uint8_t *bytes;
} entry;

/* Of a levelled set there are secret and store, of another one key and entries. */
typedef struct set {
    const hemi_params *params;
    const hemi_context *ctx;
    hemi_secret_key *key;
    const hemi_ckks_context *levelled;
    hemi_ckks_secret *secret;
    hemi_ckks_store store; /* used by those who hold the secret and are the one maker */
    entry entries[HEMI_AUTOMORPHISMS_MAX + 1];
    size_t count;
} set;

typedef struct bias {
    struct bias *next;
    uint8_t id[HEMI_MODULE_ID_BYTES];
    size_t outputs;
    double b0[];
} bias;

struct hemi_keys {
    pthread_mutex_t lock;
    pthread_cond_t unheld;
    pthread_mutex_t maker; /* of evaluation keys of levelled sets, which takes long; locked before `lock` */
    size_t holders;   /* of hemi_keys_hold: no key is replaced meanwhile */
    size_t replacers; /* that wait for them, before whom nobody new takes hold */
    char *folder; /* NULL: in memory only */
    char *passphrase; /* of key files, in guarded memory; NULL: they are plain */
    set sets[SETS_MAX];
    size_t count;
    uint64_t generation;
    bias *biases;
};

static hemi_status set_passphrase(hemi_keys *keys, const char *passphrase, hemi_error *err) {
    char *copy = NULL;
    if (passphrase && !passphrase[0]) return hemi_fail(err, HEMI_ERR_ARGUMENT, "the passphrase is empty");
    if (passphrase && !(copy = hemi_secure_alloc(strlen(passphrase) + 1, 1))) return hemi_fail(err, HEMI_ERR_MEMORY, "no guarded memory for a passphrase");
    if (passphrase) strcpy(copy, passphrase);
    hemi_secure_free(keys->passphrase);
    keys->passphrase = copy;
    return HEMI_OK;
}

hemi_status hemi_keys_new(hemi_keys **out, const char *folder, hemi_error *err) {
    const hemi_keys_options options = {.folder = folder};
    return hemi_keys_new_with(out, &options, err);
}

hemi_status hemi_keys_new_with(hemi_keys **out, const hemi_keys_options *options, hemi_error *err) {
    const char *folder = options->folder;
    *out = NULL;
    if (hemi_random_init() != 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "the random number generator could not be started");
    hemi_keys *keys = hemi_alloc(1, sizeof *keys);
    if (!keys) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for keys");
    (void)pthread_mutex_init(&keys->lock, NULL);
    (void)pthread_mutex_init(&keys->maker, NULL);
    (void)pthread_cond_init(&keys->unheld, NULL);
    hemi_status s = HEMI_OK;
    if (folder) {
        s = hemi_folder_create(folder, err);
        keys->folder = hemi_strdup(folder);
        if (s == HEMI_OK && !keys->folder) s = hemi_fail(err, HEMI_ERR_MEMORY, "no memory for keys");
    }
    if (s == HEMI_OK) s = set_passphrase(keys, options->passphrase, err);
    if (s != HEMI_OK) {
        hemi_keys_free(keys);
        return s;
    }
    *out = keys;
    return HEMI_OK;
}

static void forget_biases(hemi_keys *keys) {
    for (bias *b = keys->biases, *next; b; b = next) {
        next = b->next;
        hemi_free(b);
    }
    keys->biases = NULL;
}

static void forget_entries(set *s) {
    for (size_t i = 0; i < s->count; i++) hemi_free(s->entries[i].bytes);
    s->count = 0;
    hemi_ckks_store_clear(&s->store);
}

static void forget_secret(set *s) {
    hemi_secret_key_free(s->key);
    hemi_ckks_secret_free(s->secret);
    s->key = NULL;
    s->secret = NULL;
}

void hemi_keys_free(hemi_keys *keys) {
    if (!keys) return;
    for (size_t i = 0; i < keys->count; i++) {
        forget_entries(&keys->sets[i]);
        forget_secret(&keys->sets[i]);
    }
    forget_biases(keys);
    hemi_free(keys->folder);
    hemi_secure_free(keys->passphrase);
    (void)pthread_cond_destroy(&keys->unheld);
    (void)pthread_mutex_destroy(&keys->maker);
    (void)pthread_mutex_destroy(&keys->lock);
    hemi_free(keys);
}

void hemi_bytes_release(void *bytes) { hemi_free(bytes); }

/* "<folder>/L4096.key" */
static char *key_path(const hemi_keys *keys, const hemi_params *params) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s.key", params->name);
    return hemi_path_join(keys->folder, name);
}

static size_t file_bytes(const set *s) {
    return s->levelled ? hemi_ckks_secret_file_bytes(s->params) : hemi_secret_key_file_bytes(s->params);
}

/* A key that others can read, or put there, is not a secret one. */
static hemi_status check_private(const char *path, hemi_error *err) {
    struct stat st;
    if (stat(path, &st) != 0) return hemi_fail(err, HEMI_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (st.st_mode & 077) return hemi_fail(err, HEMI_ERR_IO, "others can read it: chmod 600 %s", path);
    if (st.st_uid != geteuid() && geteuid() != 0) return hemi_fail(err, HEMI_ERR_IO, "it belongs to another user");
    return HEMI_OK;
}

static hemi_status import(set *s, const uint8_t *bytes, size_t count, hemi_error *err) {
    return s->levelled ? hemi_ckks_secret_import(&s->secret, s->levelled, bytes, count, err) : hemi_secret_key_import(&s->key, s->ctx, bytes, count, err);
}

static hemi_status import_sealed(set *s, const uint8_t *bytes, size_t count, const char *passphrase, hemi_error *err) {
    if (count <= HEMI_SEAL_OVERHEAD) return hemi_fail(err, HEMI_ERR_FORMAT, "the encrypted secret key file is too short");
    uint8_t *plain = hemi_secure_alloc(count - HEMI_SEAL_OVERHEAD, 1);
    if (!plain) return hemi_fail(err, HEMI_ERR_MEMORY, "no guarded memory for a secret key");
    hemi_status status = hemi_seal_open(plain, s->params, bytes, count, passphrase, err);
    if (status == HEMI_OK) status = import(s, plain, count - HEMI_SEAL_OVERHEAD, err);
    hemi_secure_free(plain);
    return status;
}

static hemi_status read_key(const hemi_keys *keys, set *s, const char *path, hemi_error *err) {
    uint8_t *bytes;
    size_t count;
    hemi_status status = check_private(path, err);
    if (status != HEMI_OK) return hemi_fail_in(err, status, "%s", path);
    HEMI_TRY(hemi_file_read(&bytes, &count, path, file_bytes(s) + HEMI_SEAL_OVERHEAD, err));
    const bool sealed = hemi_seal_is(bytes, count);
    if (sealed && !keys->passphrase)
        status = hemi_fail(err, HEMI_ERR_STATE, "this secret key is encrypted: give its passphrase");
    else if (!sealed && keys->passphrase)
        status = hemi_fail(err, HEMI_ERR_STATE, "this secret key is not encrypted, though there is a passphrase: `hemi keys protect` encrypts it");
    else
        status = sealed ? import_sealed(s, bytes, count, keys->passphrase, err) : import(s, bytes, count, err);
    hemi_free(bytes);
    if (status != HEMI_OK) status = hemi_fail_in(err, status, "%s", path);
    return status;
}

static hemi_status write_sealed(const set *s, const char *path, const uint8_t *plain, size_t count, const char *passphrase, hemi_error *err) {
    uint8_t *bytes = hemi_alloc(count + HEMI_SEAL_OVERHEAD, 1);
    hemi_status status = bytes ? hemi_seal(bytes, s->params, plain, count, passphrase, 0, 0, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory to write a key");
    if (status == HEMI_OK) status = hemi_file_write(path, bytes, count + HEMI_SEAL_OVERHEAD, 0600, err);
    hemi_free(bytes);
    return status;
}

static hemi_status write_key(const set *s, const char *path, const char *passphrase, hemi_error *err) {
    const size_t count = file_bytes(s);
    uint8_t *bytes = hemi_secure_alloc(count, 1);
    if (!bytes) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to write a key");
    if (s->levelled)
        hemi_ckks_secret_export(bytes, s->secret);
    else
        hemi_secret_key_export(bytes, s->key);
    const hemi_status status = passphrase ? write_sealed(s, path, bytes, count, passphrase, err) : hemi_file_write(path, bytes, count, 0600, err);
    hemi_secure_free(bytes);
    return status;
}

/* Makes a new key (and keeps it in the folder, if there is one); or, not forced, reads the one that is there. */
static hemi_status provide_key(hemi_keys *keys, set *s, bool force, hemi_error *err) {
    char *path = keys->folder ? key_path(keys, s->params) : NULL;
    hemi_status status = HEMI_OK;
    if (keys->folder && !path) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a path");
    if (path && !force && hemi_path_exists(path)) {
        status = read_key(keys, s, path, err);
    } else {
        status = s->levelled ? hemi_ckks_secret_new(&s->secret, s->levelled, err) : hemi_secret_key_new(&s->key, s->ctx, err);
        if (status == HEMI_OK && path) status = write_key(s, path, keys->passphrase, err);
        if (status != HEMI_OK) forget_secret(s);
    }
    hemi_free(path);
    return status;
}

/* The set's slot, with a key. The lock is held. */
static hemi_status find_set(hemi_keys *keys, const hemi_params *params, set **out, hemi_error *err) {
    set *s = NULL;
    for (size_t i = 0; i < keys->count && !s; i++)
        if (keys->sets[i].params == params) s = &keys->sets[i];
    if (!s) {
        if (params->reply_only)
            return hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for replies of other sets: its secret belongs to their keys", params->name);
        if (keys->count == SETS_MAX) return hemi_fail(err, HEMI_ERR_INTERNAL, "too many parameter sets");
        s = &keys->sets[keys->count];
        *s = (set){.params = params};
        if (params->chain > 0)
            HEMI_TRY(hemi_ckks_context_shared(&s->levelled, params, err));
        else
            HEMI_TRY(hemi_context_shared(&s->ctx, params, err));
        keys->count++;
    }
    if (!s->key && !s->secret) HEMI_TRY(provide_key(keys, s, false, err));
    *out = s;
    return HEMI_OK;
}

static hemi_status hold(hemi_keys *keys, const hemi_params *params, bool levelled, set **out, uint64_t *generation, hemi_error *err) {
    if ((params->chain > 0) != levelled)
        return hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for %s", params->name, levelled ? "linear maps, not for circuits" : "circuits alone");
    pthread_mutex_lock(&keys->lock);
    while (keys->replacers > 0) pthread_cond_wait(&keys->unheld, &keys->lock);
    const hemi_status status = find_set(keys, params, out, err);
    if (status == HEMI_OK) {
        *generation = keys->generation;
        keys->holders++;
    }
    pthread_mutex_unlock(&keys->lock);
    return status;
}

hemi_status hemi_keys_hold(hemi_keys *keys, const hemi_params *params, const hemi_secret_key **out, uint64_t *generation,
                           hemi_error *err) {
    set *s = NULL;
    HEMI_TRY(hold(keys, params, false, &s, generation, err));
    *out = s->key;
    return HEMI_OK;
}

hemi_status hemi_keys_hold_ckks(hemi_keys *keys, const hemi_params *params, const hemi_ckks_secret **out, uint64_t *generation,
                                hemi_error *err) {
    set *s = NULL;
    HEMI_TRY(hold(keys, params, true, &s, generation, err));
    *out = s->secret;
    return HEMI_OK;
}

void hemi_keys_let_go(hemi_keys *keys) {
    pthread_mutex_lock(&keys->lock);
    if (--keys->holders == 0) pthread_cond_broadcast(&keys->unheld);
    pthread_mutex_unlock(&keys->lock);
}

hemi_status hemi_keys_generate(hemi_keys *keys, const hemi_params *params, bool force, hemi_error *err) {
    set *s = NULL;
    pthread_mutex_lock(&keys->lock);
    keys->replacers += force;
    while (force && keys->holders > 0) pthread_cond_wait(&keys->unheld, &keys->lock);
    keys->replacers -= force;
    hemi_status status = find_set(keys, params, &s, err);
    if (status == HEMI_OK && force) {
        set fresh = {.params = params, .ctx = s->ctx, .levelled = s->levelled};
        status = provide_key(keys, &fresh, true, err);
        if (status == HEMI_OK) {
            forget_entries(s);
            forget_biases(keys);
            forget_secret(s);
            s->key = fresh.key;
            s->secret = fresh.secret;
            keys->generation++;
        }
    }
    if (force) pthread_cond_broadcast(&keys->unheld);
    pthread_mutex_unlock(&keys->lock);
    return status;
}

hemi_status hemi_keys_protect(hemi_keys *keys, const hemi_params *params, const char *passphrase, hemi_error *err) {
    set *s = NULL;
    if (!keys->folder) return hemi_fail(err, HEMI_ERR_ARGUMENT, "these keys are in memory only: there is no file to protect");
    if (passphrase && !passphrase[0]) return hemi_fail(err, HEMI_ERR_ARGUMENT, "the passphrase is empty");
    pthread_mutex_lock(&keys->lock);
    hemi_status status = find_set(keys, params, &s, err);
    char *path = status == HEMI_OK ? key_path(keys, params) : NULL;
    if (status == HEMI_OK) status = path ? write_key(s, path, passphrase, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a path");
    pthread_mutex_unlock(&keys->lock);
    hemi_free(path);
    return status;
}

uint64_t hemi_keys_generation(hemi_keys *keys) {
    pthread_mutex_lock(&keys->lock);
    const uint64_t generation = keys->generation;
    pthread_mutex_unlock(&keys->lock);
    return generation;
}

/* The bytes of entry t, made when first asked for. */
static hemi_status provide_entry(set *s, uint32_t t, const uint8_t **out, hemi_error *err) {
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i].t == t) {
            *out = s->entries[i].bytes;
            return HEMI_OK;
        }
    uint8_t *bytes = hemi_alloc(hemi_key_entry_bytes(s->params, t), 1);
    if (!bytes || s->count > HEMI_AUTOMORPHISMS_MAX) {
        hemi_free(bytes);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for an evaluation key");
    }
    const hemi_status status = hemi_secret_make_key(s->key, t, bytes, err);
    if (status != HEMI_OK) {
        hemi_free(bytes);
        return status;
    }
    s->entries[s->count++] = (entry){t, bytes};
    *out = bytes;
    return HEMI_OK;
}

/* The union of the entries that the modules need, increasing, after t = 0 for the public key. */
static size_t gather(const hemi_module *const *modules, size_t count, uint32_t *t) {
    size_t found = 1;
    t[0] = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t of_module[HEMI_AUTOMORPHISMS_MAX];
        const size_t needed = hemi_module_key_entries(modules[i], of_module);
        for (size_t j = 0; j < needed; j++) {
            size_t at = 0;
            while (at < found && t[at] < of_module[j]) at++;
            if (at < found && t[at] == of_module[j]) continue;
            memmove(t + at + 1, t + at, (found - at) * sizeof *t);
            t[at] = of_module[j];
            found++;
        }
    }
    return found;
}

static hemi_status assemble(set *s, const uint32_t *t, size_t entries, uint8_t **bytes, size_t *length, hemi_error *err) {
    size_t total = HEMI_KEYS_HEADER_BYTES;
    for (size_t i = 0; i < entries; i++) total += hemi_key_entry_bytes(s->params, t[i]);
    uint8_t *out = hemi_alloc(total, 1);
    if (!out) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %zu bytes of evaluation keys", total);
    hemi_keys_write_header(out, s->params, entries);
    uint8_t *at = out + HEMI_KEYS_HEADER_BYTES;
    for (size_t i = 0; i < entries; i++) {
        const uint8_t *e = NULL;
        const hemi_status status = provide_entry(s, t[i], &e, err);
        if (status != HEMI_OK) {
            hemi_free(out);
            return status;
        }
        memcpy(at, e, hemi_key_entry_bytes(s->params, t[i]));
        at += hemi_key_entry_bytes(s->params, t[i]);
    }
    *bytes = out;
    *length = total;
    return HEMI_OK;
}

hemi_status hemi_keys_levelled(hemi_keys *keys, const hemi_params *params, const hemi_ckks_need *need, hemi_progress_fn progress, void *context,
                               uint8_t **bytes, size_t *length, hemi_error *err) {
    set *s = NULL;
    uint64_t generation;
    *bytes = NULL;
    *length = 0;
    pthread_mutex_lock(&keys->maker); /* who comes second finds the entries made */
    hemi_status status = hold(keys, params, true, &s, &generation, err);
    if (status == HEMI_OK) {
        status = hemi_ckks_store_keys(&s->store, s->secret, need, progress, context, bytes, length, err);
        hemi_keys_let_go(keys);
    }
    pthread_mutex_unlock(&keys->maker);
    return status;
}

static const hemi_params *set_of(const hemi_module *m) { return m->is_circuit ? m->io.params : m->layout.params; }

static hemi_status circuits_evaluation(hemi_keys *keys, const hemi_module *const *modules, size_t count, uint8_t **bytes, size_t *length,
                                       hemi_error *err) {
    hemi_ckks_need need = {0};
    for (size_t i = 0; i < count; i++) {
        bool more;
        HEMI_TRY(hemi_ckks_need_add(&need, &modules[i]->io, &more, err));
    }
    return hemi_keys_levelled(keys, set_of(modules[0]), &need, NULL, NULL, bytes, length, err);
}

hemi_status hemi_keys_evaluation(hemi_keys *keys, const hemi_module *const *modules, size_t count, uint8_t **bytes, size_t *length,
                                 hemi_error *err) {
    uint32_t t[HEMI_AUTOMORPHISMS_MAX + 1];
    set *s = NULL;
    *bytes = NULL;
    *length = 0;
    if (count == 0) return hemi_fail(err, HEMI_ERR_ARGUMENT, "evaluation keys are made for at least one module");
    const hemi_params *params = set_of(modules[0]);
    for (size_t i = 1; i < count; i++)
        if (set_of(modules[i]) != params || modules[i]->is_circuit != modules[0]->is_circuit)
            return hemi_fail(err, HEMI_ERR_ARGUMENT, "modules of sets %s and %s: make evaluation keys for each set on its own", params->name,
                             set_of(modules[i])->name);
    if (modules[0]->is_circuit) return circuits_evaluation(keys, modules, count, bytes, length, err);
    const size_t entries = gather(modules, count, t);
    pthread_mutex_lock(&keys->lock);
    hemi_status status = find_set(keys, params, &s, err);
    if (status == HEMI_OK) status = assemble(s, t, entries, bytes, length, err);
    pthread_mutex_unlock(&keys->lock);
    return status;
}

hemi_status hemi_keys_public(hemi_keys *keys, const hemi_params *params, uint8_t **bytes, size_t *length, hemi_error *err) {
    const uint32_t t = 0;
    set *s = NULL;
    *bytes = NULL;
    *length = 0;
    if (params->chain > 0) return hemi_fail(err, HEMI_ERR_PARAMS, "set %s is for circuits alone", params->name);
    pthread_mutex_lock(&keys->lock);
    hemi_status status = find_set(keys, params, &s, err);
    if (status == HEMI_OK) status = assemble(s, &t, 1, bytes, length, err);
    pthread_mutex_unlock(&keys->lock);
    return status;
}

bool hemi_keys_bias_get(hemi_keys *keys, const uint8_t id[HEMI_MODULE_ID_BYTES], double *b0, size_t outputs) {
    bool found = false;
    pthread_mutex_lock(&keys->lock);
    for (const bias *b = keys->biases; b && !found; b = b->next)
        if (b->outputs == outputs && memcmp(b->id, id, HEMI_MODULE_ID_BYTES) == 0) {
            if (b0) memcpy(b0, b->b0, outputs * sizeof *b0);
            found = true;
        }
    pthread_mutex_unlock(&keys->lock);
    return found;
}

hemi_status hemi_keys_bias_put(hemi_keys *keys, const uint8_t id[HEMI_MODULE_ID_BYTES], const double *b0, size_t outputs, hemi_error *err) {
    bias *b = hemi_alloc(1, sizeof *b + outputs * sizeof *b->b0);
    if (!b) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory to remember a bias");
    memcpy(b->id, id, HEMI_MODULE_ID_BYTES);
    b->outputs = outputs;
    memcpy(b->b0, b0, outputs * sizeof *b0);
    pthread_mutex_lock(&keys->lock);
    b->next = keys->biases;
    keys->biases = b;
    pthread_mutex_unlock(&keys->lock);
    return HEMI_OK;
}
