#include "store/tenant_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#define FILE_BYTES_MAX ((size_t)16 << 20)
#define LINE_BYTES_MAX 256

bool hemi_tenant_name_is_valid(const char *name) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const size_t length = strlen(name);
    return length >= 1 && length <= HEMI_TENANT_NAME_BYTES_MAX && name[0] != '.' && strspn(name, allowed) == length;
}

void hemi_token_hash(uint8_t hash[HEMI_STORE_TOKEN_HASH_BYTES], const char *token) {
    (void)crypto_generichash(hash, HEMI_STORE_TOKEN_HASH_BYTES, (const uint8_t *)token, strlen(token), NULL, 0);
}

void hemi_token_new(char token[HEMI_TOKEN_CHARACTERS + 1], uint8_t hash[HEMI_STORE_TOKEN_HASH_BYTES]) {
    uint8_t secret[32];
    randombytes_buf(secret, sizeof secret);
    strcpy(token, HEMI_TOKEN_PREFIX);
    sodium_bin2hex(token + sizeof HEMI_TOKEN_PREFIX - 1, 2 * sizeof secret + 1, secret, sizeof secret);
    sodium_memzero(secret, sizeof secret);
    hemi_token_hash(hash, token);
}

/* ---- reading */

/* The next word of a line, or NULL. */
static char *next_word(char **at) { return strtok_r(NULL, " \t\r", at); }

static bool read_time(int64_t *out, const char *text) {
    char *end;
    if (!text || text[0] < '0' || text[0] > '9') return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0 && *end == 0;
}

/* NULL, or what is wrong with the line. */
static const char *read_line(hemi_store_tenant *t, char *line) {
    char *at, *name = strtok_r(line, " \t\r", &at), *role = next_word(&at), *hash = next_word(&at), *created = next_word(&at), *revoked = next_word(&at);
    size_t bytes;
    const char *end;
    memset(t, 0, sizeof *t);
    if (!revoked || next_word(&at)) return "five words are expected: NAME ROLE HASH CREATED REVOKED";
    if (!hemi_tenant_name_is_valid(name)) return "the name may have letters, digits, '.', '_' and '-'";
    t->is_operator = strcmp(role, "operator") == 0;
    if (!t->is_operator && strcmp(role, "tenant") != 0) return "the second word is 'tenant' or 'operator'";
    if (strlen(hash) != 2 * sizeof t->token_hash ||
        sodium_hex2bin(t->token_hash, sizeof t->token_hash, hash, strlen(hash), NULL, &bytes, &end) != 0 || bytes != sizeof t->token_hash || *end)
        return "the third word is the hash of a token: 64 hexadecimal digits";
    if (!read_time(&t->created, created) || !read_time(&t->revoked, revoked)) return "the last two words are seconds since 1970";
    strcpy(t->name, name);
    return NULL;
}

static int compare(const void *a, const void *b) { return strcmp(((const hemi_store_tenant *)a)->name, ((const hemi_store_tenant *)b)->name); }

static hemi_status read_lines(const char *path, char *text, hemi_store_tenant *all, size_t *count, hemi_error *err) {
    size_t number = 0;
    *count = 0;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        number++;
        if (line[strspn(line, " \t\r")] == 0 || line[0] == '#') continue;
        const char *wrong = read_line(&all[*count], line);
        if (wrong) return hemi_fail(err, HEMI_ERR_FORMAT, "%s, line %zu: %s", path, number, wrong);
        ++*count;
    }
    qsort(all, *count, sizeof *all, compare);
    for (size_t i = 1; i < *count; i++)
        if (compare(&all[i - 1], &all[i]) == 0) return hemi_fail(err, HEMI_ERR_FORMAT, "%s: the tenant %s is there twice", path, all[i].name);
    return HEMI_OK;
}

hemi_status hemi_tenant_file_read(const char *path, hemi_store_tenant **tenants, size_t *count, hemi_error *err) {
    uint8_t *text;
    size_t bytes, lines = 1;
    *tenants = NULL;
    *count = 0;
    HEMI_TRY(hemi_file_read(&text, &bytes, path, FILE_BYTES_MAX, err));
    hemi_status status = HEMI_OK;
    if (memchr(text, 0, bytes)) status = hemi_fail(err, HEMI_ERR_FORMAT, "%s is no file of tenants: it holds a zero byte", path);
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    hemi_store_tenant *all = status == HEMI_OK ? calloc(lines, sizeof *all) : NULL;
    if (status == HEMI_OK) status = all ? read_lines(path, (char *)text, all, count, err) : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for tenants");
    hemi_free(text);
    if (status != HEMI_OK) {
        free(all);
        *count = 0;
        return status;
    }
    *tenants = all;
    return HEMI_OK;
}

/* ---- writing */

static hemi_status write_all(const char *path, const hemi_store_tenant *all, size_t count, hemi_error *err) {
    const char head[] = "# Tenants of a Hemi server, made by `hemi tenants`: NAME ROLE HASH-OF-TOKEN CREATED REVOKED\n";
    const size_t room = sizeof head + count * LINE_BYTES_MAX;
    char *text = malloc(room), hash[2 * HEMI_STORE_TOKEN_HASH_BYTES + 1];
    if (!text) return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for tenants");
    size_t at = (size_t)snprintf(text, room, "%s", head);
    for (size_t i = 0; i < count; i++) {
        sodium_bin2hex(hash, sizeof hash, all[i].token_hash, sizeof all[i].token_hash);
        at += (size_t)snprintf(text + at, room - at, "%s %s %s %" PRId64 " %" PRId64 "\n", all[i].name, all[i].is_operator ? "operator" : "tenant", hash, all[i].created,
                               all[i].revoked);
    }
    const hemi_status status = hemi_file_write(path, text, at, 0600, err);
    free(text);
    return status;
}

/* The file of the lock stays: removing it would let two in. */
static hemi_status lock_file(const char *path, int *fd, hemi_error *err) {
    char name[4096];
    if (snprintf(name, sizeof name, "%s.lock", path) >= (int)sizeof name) return hemi_fail(err, HEMI_ERR_ARGUMENT, "the path is too long: %.80s...", path);
    *fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd >= 0 && flock(*fd, LOCK_EX) == 0) return HEMI_OK;
    const int reason = errno;
    if (*fd >= 0) close(*fd);
    return hemi_fail(err, HEMI_ERR_IO, "cannot write %s: %s", name, strerror(reason));
}

static hemi_store_tenant *find(hemi_store_tenant *all, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(all[i].name, name) == 0) return &all[i];
    return NULL;
}

static hemi_status read_or_begin(const char *path, hemi_store_tenant **all, size_t *count, hemi_error *err) {
    const hemi_status status = hemi_tenant_file_read(path, all, count, err);
    return status == HEMI_ERR_NOT_FOUND ? HEMI_OK : status;
}

static hemi_status add_locked(const char *path, const hemi_store_tenant *tenant, hemi_error *err) {
    hemi_store_tenant *all;
    size_t count;
    HEMI_TRY(read_or_begin(path, &all, &count, err));
    hemi_store_tenant *more = realloc(all, (count + 1) * sizeof *all), *there;
    if (!more) {
        free(all);
        return hemi_fail(err, HEMI_ERR_MEMORY, "no memory for tenants");
    }
    there = find(more, count, tenant->name);
    hemi_status status = HEMI_OK;
    if (there && there->revoked == 0)
        status = hemi_fail(err, HEMI_ERR_STATE, "there is a tenant %s already: revoke it first to give it a new token", tenant->name);
    else if (there)
        *there = *tenant;
    else
        more[count++] = *tenant;
    if (status == HEMI_OK) status = write_all(path, more, count, err);
    free(more);
    return status;
}

static hemi_status revoke_locked(const char *path, const char *name, int64_t now, hemi_error *err) {
    hemi_store_tenant *all, *there;
    size_t count;
    HEMI_TRY(hemi_tenant_file_read(path, &all, &count, err));
    there = find(all, count, name);
    hemi_status status = HEMI_OK;
    if (!there || there->revoked)
        status = hemi_fail(err, HEMI_ERR_NOT_FOUND, "there is no tenant %s that is not revoked; `hemi tenants list` shows them", name);
    else
        there->revoked = now;
    if (status == HEMI_OK) status = write_all(path, all, count, err);
    free(all);
    return status;
}

hemi_status hemi_tenant_file_add(const char *path, const hemi_store_tenant *tenant, hemi_error *err) {
    int fd;
    HEMI_TRY(lock_file(path, &fd, err));
    const hemi_status status = add_locked(path, tenant, err);
    close(fd);
    return status;
}

hemi_status hemi_tenant_file_revoke(const char *path, const char *name, int64_t now, hemi_error *err) {
    int fd;
    HEMI_TRY(lock_file(path, &fd, err));
    const hemi_status status = revoke_locked(path, name, now, err);
    close(fd);
    return status;
}
