/* The extraction budget: rows served of each module to each tenant, and whether there may be more. A linear map is known after inputs + 1 rows that its
 * client chose; docs/threat-model.md says what counting can and cannot do.
 *
 * Rows are reserved from the store in blocks, and a block is renewed in the background before it is used up, so that a call waits for the
 * disk only when a block was used up faster than that. What is reserved and not served is given back when it was not used for a while, but for a
 * little, and all at the end; after a crash it counts as served.
 * A request with the same bytes as one that was answered lately is the same rows: it is not counted again. */
#ifndef HEMI_SERVER_BUDGET_H
#define HEMI_SERVER_BUDGET_H

#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

#define HEMI_BUDGET_MODULES_MAX 16
#define HEMI_BUDGET_DIGEST_BYTES 16

typedef struct hemi_budget hemi_budget;

/* store is borrowed; NULL: counted in this process alone. fraction: rows / (inputs + 1) that a tenant may have of a module; 0: counted, never refused. */
HEMI_CHECK hemi_status hemi_budget_new(hemi_budget **out, hemi_store *store, double fraction, hemi_error *err);
/* Gives back what was not served. No charge may be open. */
void hemi_budget_free(hemi_budget *budget);

/* Rows of one request, of each of the modules it names. */
typedef struct hemi_charge {
    const char *tenant;
    struct {
        char subject[HEMI_STORE_SUBJECT_BYTES_MAX + 1]; /* "model/module" */
        uint64_t inputs;
    } module[HEMI_BUDGET_MODULES_MAX];
    size_t modules;
    uint64_t rows;
    uint8_t digest[HEMI_BUDGET_DIGEST_BYTES]; /* hemi_budget_digest */
    bool counted;                             /* out: rows were taken for it, and not for an earlier request with the same bytes */
} hemi_charge;

/* Of all that makes two requests the same: keyed, so that nobody can make two that are not and have the same. */
void hemi_budget_digest(const hemi_budget *budget, uint8_t digest[HEMI_BUDGET_DIGEST_BYTES], const char *tenant, const void *context, size_t context_bytes,
                        const void *body, size_t bytes);
/* Before computing: all modules or none. ERR_BUDGET says which module and how many rows; ERR_IO when the store does not answer. On a worker. */
HEMI_CHECK hemi_status hemi_budget_take(hemi_budget *budget, hemi_charge *charge, hemi_error *err);
/* Afterwards, always: served, or not (then its rows are there for others). */
void hemi_budget_settle(hemi_budget *budget, const hemi_charge *charge, bool served);

/* What this process knows, for metrics: rows served, by all servers of the store as of the last block. */
typedef struct hemi_budget_line {
    const char *tenant, *subject;
    uint64_t rows, inputs;
} hemi_budget_line;
void hemi_budget_each(hemi_budget *budget, void (*call)(void *context, const hemi_budget_line *line), void *context);
double hemi_budget_fraction(const hemi_budget *budget);

#endif
