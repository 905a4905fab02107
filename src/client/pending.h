/* What is kept between a request and its reply. Internal to the room. */
#ifndef HEMI_CLIENT_PENDING_H
#define HEMI_CLIENT_PENDING_H

#include "hemi/client.h"
#include "wire/wire.h"

struct hemi_pending {
    uint8_t id[HEMI_MODULE_ID_BYTES];
    hemi_form form;
    size_t rows, units;      /* of the caller; on grids a row is a sample */
    bool zero_unit;          /* one more unit follows: zeros, whose reply is the bias */
    bool *in_range;          /* of circuits: whether a row's numbers, and its results, are within what was calibrated; NULL otherwise */
    uint64_t key_generation; /* of the secret key of the request */
    double number[];         /* secret: the factor of each row, then its scale; nothing of circuits */
};

#endif
