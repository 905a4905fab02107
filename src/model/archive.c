#include "model/archive.h"

#include <stdbool.h>
#include <zip.h>

#include "base/error.h"
#include "base/memory.h"

#define DOS_DATE_1980_01_01 0x21

static hemi_status failed(hemi_status status, const char *what, zip_t *archive, hemi_error *err) {
    return hemi_fail(err, status, "zip: %s%s%s", what, archive != NULL ? ": " : "",
                     archive != NULL ? zip_strerror(archive) : "");
}

static bool add_entry(zip_t *archive, const hemi_archive_entry *e) {
    zip_source_t *content = zip_source_buffer(archive, e->data, e->bytes, 0);
    if (content == NULL) return false;
    const zip_int64_t index = zip_file_add(archive, e->name, content, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
        zip_source_free(content);
        return false;
    }
    return zip_set_file_compression(archive, (zip_uint64_t)index, ZIP_CM_STORE, 0) == 0 &&
           zip_file_set_dostime(archive, (zip_uint64_t)index, 0, DOS_DATE_1980_01_01, 0) == 0;
}

/* The bytes of a source that an archive was written to. */
static hemi_status take_bytes(uint8_t **zip, size_t *bytes, zip_source_t *source, hemi_error *err) {
    zip_stat_t stat;
    zip_stat_init(&stat);
    if (zip_source_stat(source, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0 || zip_source_open(source) != 0)
        return failed(HEMI_ERR_MEMORY, "the archive cannot be written", NULL, err);
    *bytes = (size_t)stat.size;
    *zip = hemi_alloc(*bytes, 1);
    const bool complete = *zip != NULL && zip_source_read(source, *zip, stat.size) == (zip_int64_t)stat.size;
    (void)zip_source_close(source);
    if (complete) return HEMI_OK;
    hemi_free(*zip);
    *zip = NULL;
    return failed(HEMI_ERR_MEMORY, "the archive cannot be written", NULL, err);
}

static hemi_status write_archive(uint8_t **zip, size_t *bytes, const hemi_archive_entry *entries, size_t count,
                                 hemi_error *err) {
    *zip = NULL;
    *bytes = 0;
    zip_source_t *source = zip_source_buffer_create(NULL, 0, 0, NULL);
    zip_t *archive = source != NULL ? zip_open_from_source(source, ZIP_TRUNCATE, NULL) : NULL;
    if (archive == NULL) {
        zip_source_free(source);
        return failed(HEMI_ERR_MEMORY, "the archive cannot be made", NULL, err);
    }
    zip_source_keep(source); /* beyond the archive */
    hemi_status status = HEMI_OK;
    for (size_t i = 0; i < count && status == HEMI_OK; i++)
        if (!add_entry(archive, &entries[i])) status = failed(HEMI_ERR_MEMORY, entries[i].name, archive, err);
    if (status == HEMI_OK && zip_close(archive) != 0)
        status = failed(HEMI_ERR_MEMORY, "the archive cannot be written", archive, err);
    if (status != HEMI_OK)
        zip_discard(archive);
    else
        status = take_bytes(zip, bytes, source, err);
    zip_source_free(source);
    return status;
}

static hemi_status read_entry(hemi_archive_entry *e, zip_t *archive, size_t archive_bytes, hemi_error *err) {
    const zip_int64_t index = zip_name_locate(archive, e->name, ZIP_FL_ENC_RAW);
    zip_stat_t stat;
    const zip_uint64_t wanted = ZIP_STAT_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (index < 0) return hemi_fail(err, HEMI_ERR_FORMAT, "zip: there is no %s in it", e->name);
    if (zip_stat_index(archive, (zip_uint64_t)index, 0, &stat) != 0 || (stat.valid & wanted) != wanted)
        return failed(HEMI_ERR_FORMAT, e->name, archive, err);
    if (stat.comp_method != ZIP_CM_STORE || stat.encryption_method != ZIP_EM_NONE)
        return hemi_fail(err, HEMI_ERR_FORMAT, "zip: %s is compressed or encrypted; only stored entries are read",
                         e->name);
    if (stat.size > e->max_bytes)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "zip: %s has %llu bytes, more than %zu", e->name,
                         (unsigned long long)stat.size, e->max_bytes);
    if (stat.size > archive_bytes)
        return hemi_fail(err, HEMI_ERR_FORMAT, "zip: %s is larger than the archive", e->name);
    e->bytes = (size_t)stat.size;
    e->data = hemi_alloc(e->bytes + 1, 1);
    zip_file_t *file = e->data != NULL ? zip_fopen_index(archive, (zip_uint64_t)index, 0) : NULL;
    if (file == NULL)
        return e->data != NULL ? failed(HEMI_ERR_FORMAT, e->name, archive, err)
                               : hemi_fail(err, HEMI_ERR_MEMORY, "no memory for %s", e->name);
    uint8_t beyond;
    /* reading past the end is what checks the CRC */
    const bool complete =
        zip_fread(file, e->data, stat.size) == (zip_int64_t)stat.size && zip_fread(file, &beyond, 1) == 0;
    return zip_fclose(file) == 0 && complete ? HEMI_OK : hemi_fail(err, HEMI_ERR_FORMAT, "zip: %s is damaged", e->name);
}

static hemi_status read_archive(hemi_archive_entry *entries, size_t count, const uint8_t *zip, size_t bytes,
                                hemi_error *err) {
    for (size_t i = 0; i < count; i++) entries[i].data = NULL;
    zip_source_t *source = zip_source_buffer_create(zip, bytes, 0, NULL);
    zip_t *archive = source != NULL ? zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, NULL) : NULL;
    if (archive == NULL) {
        zip_source_free(source);
        return hemi_fail(err, HEMI_ERR_FORMAT, "zip: this is not a zip file, or it is damaged");
    }
    hemi_status status = HEMI_OK;
    if (zip_get_num_entries(archive, 0) != (zip_int64_t)count)
        status = hemi_fail(err, HEMI_ERR_FORMAT, "zip: %lld entries where %zu are expected",
                           (long long)zip_get_num_entries(archive, 0), count);
    for (size_t i = 0; i < count && status == HEMI_OK; i++) status = read_entry(&entries[i], archive, bytes, err);
    zip_discard(archive);
    for (size_t i = 0; i < count && status != HEMI_OK; i++) {
        hemi_free(entries[i].data);
        entries[i].data = NULL;
    }
    return status;
}

/* The library copies contents into blocks of its own. */
hemi_status hemi_archive_write(uint8_t **zip, size_t *bytes, const hemi_archive_entry *entries, size_t count,
                               hemi_error *err) {
    hemi_wipe_freed_begin();
    const hemi_status status = write_archive(zip, bytes, entries, count, err);
    hemi_wipe_freed_end();
    return status;
}

hemi_status hemi_archive_read(hemi_archive_entry *entries, size_t count, const uint8_t *zip, size_t bytes,
                              hemi_error *err) {
    hemi_wipe_freed_begin();
    const hemi_status status = read_archive(entries, count, zip, bytes, err);
    hemi_wipe_freed_end();
    return status;
}
