/* Filling in a hemi_error. */
#ifndef HEMI_BASE_ERROR_H
#define HEMI_BASE_ERROR_H

#include "hemi/status.h"

/* Writes status and message to err (which may be NULL) and returns status: `return hemi_fail(err, ...)`.
 * The message must hold no plaintext and no key material. */
hemi_status hemi_fail(hemi_error *err, hemi_status status, const char *format, ...) HEMI_PRINTF(3, 4);

/* Puts "context: " before the message that err holds. Returns err->status (or status if err is NULL). */
hemi_status hemi_fail_in(hemi_error *err, hemi_status status, const char *format, ...) HEMI_PRINTF(3, 4);

/* `HEMI_TRY(f(..., err))`: returns from the caller when f fails; only where nothing needs to be freed. */
#define HEMI_TRY(call)                                   \
    do {                                                 \
        hemi_status hemi_try_status_ = (call);           \
        if (hemi_try_status_ != HEMI_OK) return hemi_try_status_; \
    } while (0)

#endif
