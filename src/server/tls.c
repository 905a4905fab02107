#include "server/tls.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#define CHAIN_MAX      8
#define FILE_BYTES_MAX ((size_t)1 << 20)

/* What handshakes under way use is freed at the end only: GnuTLS does not copy it. */
typedef struct identity {
    gnutls_pcert_st chain[CHAIN_MAX];
    unsigned count;
    gnutls_privkey_t key;
    struct identity *older;
} identity;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static identity *current;
static char *certificate_path, *key_path;

static hemi_status fail(hemi_error *err, const char *path, int code, const char *what) {
    return hemi_fail(err, HEMI_ERR_FORMAT, "%s is not %s: %s", path, what, gnutls_strerror(code));
}

static hemi_status check_time(identity *i, const char *path, hemi_error *err) {
    gnutls_x509_crt_t leaf;
    int code = gnutls_pcert_export_x509(&i->chain[0], &leaf);
    if (code < 0) return fail(err, path, code, "a certificate in PEM");
    const time_t until = gnutls_x509_crt_get_expiration_time(leaf), now = time(NULL);
    gnutls_x509_crt_deinit(leaf);
    if (until > now) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_FORMAT, "the certificate in %s has expired: clients would refuse it", path);
}

/* The key and the certificate belong together: the same public key. */
static hemi_status check_pair(const identity *i, hemi_error *err) {
    unsigned char a[64], b[64];
    size_t a_bytes = sizeof a, b_bytes = sizeof b;
    gnutls_pubkey_t from_key;
    int code = gnutls_pubkey_init(&from_key);
    if (code >= 0) code = gnutls_pubkey_import_privkey(from_key, i->key, 0, 0);
    if (code >= 0) code = gnutls_pubkey_get_key_id(from_key, GNUTLS_KEYID_USE_SHA256, a, &a_bytes);
    if (code >= 0) code = gnutls_pubkey_get_key_id(i->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, b, &b_bytes);
    gnutls_pubkey_deinit(from_key);
    if (code >= 0 && a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0) return HEMI_OK;
    return hemi_fail(err, HEMI_ERR_FORMAT, "the key in %s is not that of the certificate in %s", key_path, certificate_path);
}

static hemi_status read_certificate(identity *i, hemi_error *err) {
    uint8_t *text;
    size_t bytes;
    HEMI_TRY(hemi_file_read(&text, &bytes, certificate_path, FILE_BYTES_MAX, err));
    const gnutls_datum_t pem = {.data = text, .size = (unsigned)bytes};
    i->count = CHAIN_MAX;
    const int code = gnutls_pcert_list_import_x509_raw(i->chain, &i->count, &pem, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    hemi_free(text);
    if (code < 0) {
        i->count = 0;
        return fail(err, certificate_path, code, "a chain of certificates in PEM, the server's own first");
    }
    return check_time(i, certificate_path, err);
}

static hemi_status read_key(identity *i, hemi_error *err) {
    uint8_t *text;
    size_t bytes;
    struct stat s;
    if (stat(key_path, &s) == 0 && (s.st_mode & 07))
        return hemi_fail(err, HEMI_ERR_IO, "the key %s can be read by every user of this machine: chmod 600 %s", key_path, key_path);
    HEMI_TRY(hemi_file_read(&text, &bytes, key_path, FILE_BYTES_MAX, err));
    const gnutls_datum_t pem = {.data = text, .size = (unsigned)bytes};
    int code = gnutls_privkey_init(&i->key);
    if (code >= 0) code = gnutls_privkey_import_x509_raw(i->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    hemi_free(text); /* wiped */
    return code < 0 ? fail(err, key_path, code, "a private key in PEM, without a passphrase") : HEMI_OK;
}

static void identity_free(identity *i) {
    if (!i) return;
    for (unsigned k = 0; k < i->count; k++) gnutls_pcert_deinit(&i->chain[k]);
    if (i->key) gnutls_privkey_deinit(i->key);
    free(i);
}

static hemi_status read_both(identity **out, hemi_error *err) {
    identity *i = calloc(1, sizeof *i);
    *out = NULL;
    if (!i) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a certificate");
    hemi_status status = read_certificate(i, err);
    if (status == HEMI_OK) status = read_key(i, err);
    if (status == HEMI_OK) status = check_pair(i, err);
    if (status != HEMI_OK) {
        identity_free(i);
        return status;
    }
    *out = i;
    return HEMI_OK;
}

hemi_status hemi_tls_reload(hemi_error *err) {
    identity *i;
    if (!certificate_path) return HEMI_OK;
    HEMI_TRY(read_both(&i, err));
    pthread_mutex_lock(&lock);
    i->older = current;
    current = i;
    pthread_mutex_unlock(&lock);
    return HEMI_OK;
}

hemi_status hemi_tls_start(const char *certificate, const char *key, hemi_error *err) {
    if (certificate_path) return hemi_fail(err, HEMI_ERR_STATE, "this process has a server with TLS already");
    if (gnutls_global_init() < 0) return hemi_fail(err, HEMI_ERR_INTERNAL, "GnuTLS does not start");
    certificate_path = hemi_strdup(certificate);
    key_path = hemi_strdup(key);
    hemi_status status = certificate_path && key_path ? HEMI_OK : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for a certificate");
    if (status == HEMI_OK) status = hemi_tls_reload(err);
    if (status != HEMI_OK) hemi_tls_stop();
    return status;
}

void hemi_tls_stop(void) {
    for (identity *older; current; current = older) {
        older = current->older;
        identity_free(current);
    }
    hemi_free(certificate_path);
    hemi_free(key_path);
    certificate_path = key_path = NULL;
}

int hemi_tls_retrieve(gnutls_session_t session, const gnutls_datum_t *request, int requests, const gnutls_pk_algorithm_t *algorithms,
                      int algorithm_count, gnutls_pcert_st **certificates, unsigned *count, gnutls_privkey_t *key) {
    (void)session;
    (void)request;
    (void)requests;
    (void)algorithms;
    (void)algorithm_count;
    pthread_mutex_lock(&lock);
    identity *i = current;
    pthread_mutex_unlock(&lock);
    if (!i) return -1;
    *certificates = i->chain;
    *count = i->count;
    *key = i->key;
    return 0;
}
