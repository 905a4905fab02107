#include "model/protobuf.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/error.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LENGTH = 2, WIRE_32 = 5 };

/* One message being walked. */
struct frame {
    const ProtobufCMessageDescriptor *schema;
    size_t end;    /* offset after its last byte */
    uint64_t seen; /* bit i: singular field i of the schema was there */
};

struct walk {
    const uint8_t *bytes;
    size_t at, fields, depth;
    struct frame frame[HEMI_PROTOBUF_DEPTH_MAX];
};

static bool read_varint(struct walk *w, size_t end, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64 && w->at < end; shift += 7) {
        const uint8_t byte = w->bytes[w->at++];
        if (shift == 63 && byte > 1) return false;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static enum wire wire_of(const ProtobufCFieldDescriptor *f) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_LENGTH;
    default:
        return WIRE_VARINT;
    }
}

static bool type_fits(const ProtobufCFieldDescriptor *f, enum wire wire) {
    if (wire == wire_of(f)) return true;
    return wire == WIRE_LENGTH && f->label == PROTOBUF_C_LABEL_REPEATED; /* packed: a length, then the numbers */
}

static hemi_status broken(const struct walk *w, hemi_error *err) {
    return hemi_fail(err, HEMI_ERR_FORMAT, "the file is cut off or damaged near byte %zu (%s)", w->at,
                     w->frame[w->depth - 1].schema->short_name);
}

/* Steps over the value of a field, or into it if it is a message. */
static hemi_status step_value(struct walk *w, const ProtobufCFieldDescriptor *f, enum wire wire, hemi_error *err) {
    const size_t end = w->frame[w->depth - 1].end;
    uint64_t length = 0;
    switch (wire) {
    case WIRE_VARINT:
        return read_varint(w, end, &length) ? HEMI_OK : broken(w, err);
    case WIRE_64:
        length = 8;
        break;
    case WIRE_32:
        length = 4;
        break;
    case WIRE_LENGTH:
        if (!read_varint(w, end, &length)) return broken(w, err);
        break;
    default:
        return broken(w, err);
    }
    if (length > end - w->at) return broken(w, err);
    if (f != NULL && wire != wire_of(f) && wire_of(f) != WIRE_VARINT && length % (wire_of(f) == WIRE_32 ? 4 : 8) != 0)
        return broken(w, err);
    if (f == NULL || f->type != PROTOBUF_C_TYPE_MESSAGE) {
        w->at += (size_t)length;
        return HEMI_OK;
    }
    if (w->depth == HEMI_PROTOBUF_DEPTH_MAX)
        return hemi_fail(err, HEMI_ERR_FORMAT, "messages are nested more than %d deep", HEMI_PROTOBUF_DEPTH_MAX);
    w->frame[w->depth++] =
        (struct frame){.schema = (const ProtobufCMessageDescriptor *)f->descriptor, .end = w->at + (size_t)length};
    return HEMI_OK;
}

static hemi_status step_field(struct walk *w, hemi_error *err) {
    struct frame *frame = &w->frame[w->depth - 1];
    uint64_t tag = 0;
    if (!read_varint(w, frame->end, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff) return broken(w, err);
    if (++w->fields > HEMI_PROTOBUF_FIELDS_MAX)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the file has more than %d fields", HEMI_PROTOBUF_FIELDS_MAX);
    const enum wire wire = (enum wire)(tag & 7);
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(frame->schema, (unsigned)(tag >> 3));
    if (f != NULL && !type_fits(f, wire))
        return hemi_fail(err, HEMI_ERR_FORMAT, "field %s of %s has the wrong type (byte %zu)", f->name,
                         frame->schema->short_name, w->at);
    if (f != NULL && f->label != PROTOBUF_C_LABEL_REPEATED) {
        const uint64_t bit = UINT64_C(1) << ((size_t)(f - frame->schema->fields) & 63);
        if ((frame->seen & bit) != 0)
            return hemi_fail(err, HEMI_ERR_FORMAT, "field %s of %s is there twice (byte %zu)", f->name,
                             frame->schema->short_name, w->at);
        frame->seen |= bit;
    }
    return step_value(w, f, wire, err);
}

hemi_status hemi_protobuf_check(const void *bytes, size_t count, const ProtobufCMessageDescriptor *schema,
                                hemi_error *err) {
    struct walk w = {.bytes = bytes, .depth = 1};
    w.frame[0] = (struct frame){.schema = schema, .end = count};
    while (w.depth > 0) {
        if (w.at == w.frame[w.depth - 1].end)
            w.depth--;
        else
            HEMI_TRY(step_field(&w, err));
    }
    return HEMI_OK;
}

/* Each block is preceded by its size, so that freeing gives it back to the limit. */
#define BLOCK_HEADER _Alignof(max_align_t)

static void *capped_alloc(void *data, size_t size) {
    hemi_protobuf *p = data;
    if (size > p->limit - p->used || p->limit - p->used - size < BLOCK_HEADER) {
        p->refused = true;
        return NULL;
    }
    size_t *block = malloc(size + BLOCK_HEADER);
    if (block == NULL) return NULL;
    *block = size + BLOCK_HEADER;
    p->used += *block;
    return (unsigned char *)block + BLOCK_HEADER;
}

static void capped_free(void *data, void *pointer) {
    hemi_protobuf *p = data;
    if (pointer == NULL) return;
    size_t *block = (void *)((unsigned char *)pointer - BLOCK_HEADER);
    p->used -= *block;
    free(block);
}

hemi_status hemi_protobuf_read(hemi_protobuf *p, const void *bytes, size_t count,
                               const ProtobufCMessageDescriptor *schema, size_t limit, hemi_error *err) {
    *p = (hemi_protobuf){.limit = limit};
    p->allocator = (ProtobufCAllocator){.alloc = capped_alloc, .free = capped_free, .allocator_data = p};
    HEMI_TRY(hemi_protobuf_check(bytes, count, schema, err));
    p->message = protobuf_c_message_unpack(schema, &p->allocator, count, bytes);
    if (p->message != NULL) return HEMI_OK;
    if (p->refused)
        return hemi_fail(err, HEMI_ERR_TOO_LARGE, "the file needs more than %zu bytes of memory to read", limit);
    return hemi_fail(err, HEMI_ERR_FORMAT, "the file cannot be read as %s", schema->short_name);
}

void hemi_protobuf_free(hemi_protobuf *p) {
    if (p->message != NULL) protobuf_c_message_free_unpacked(p->message, &p->allocator);
    p->message = NULL;
}
