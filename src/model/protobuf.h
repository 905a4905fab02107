/* Reading protobuf from an untrusted file. protobuf-c recurses without a limit, merges repeated sub-messages and
 * allocates what the bytes ask for; so the bytes are walked first, iteratively, against the schema, and it is given an
 * allocator with a cap. */
#ifndef HEMI_MODEL_PROTOBUF_H
#define HEMI_MODEL_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "hemi/status.h"

#define HEMI_PROTOBUF_DEPTH_MAX  16
#define HEMI_PROTOBUF_FIELDS_MAX 4000000 /* fields of one file, packed arrays counting once */

typedef struct hemi_protobuf {
    ProtobufCMessage *message;
    ProtobufCAllocator allocator; /* its data is this object: do not move it */
    size_t used, limit;           /* bytes */
    bool refused;                 /* the limit was reached */
} hemi_protobuf;

/* Lengths inside their message, wire types as the schema says, depth, singular fields at most once. ERR_FORMAT,
 * ERR_TOO_LARGE. Allocates nothing. */
HEMI_CHECK hemi_status hemi_protobuf_check(const void *bytes, size_t count, const ProtobufCMessageDescriptor *schema,
                                           hemi_error *err);
/* Checks and unpacks into p->message, taking at most `limit` bytes of memory. ERR_FORMAT, ERR_TOO_LARGE, ERR_MEMORY. */
HEMI_CHECK hemi_status hemi_protobuf_read(hemi_protobuf *p, const void *bytes, size_t count,
                                          const ProtobufCMessageDescriptor *schema, size_t limit, hemi_error *err);
void hemi_protobuf_free(hemi_protobuf *p); /* safe on a zeroed object */

#endif
