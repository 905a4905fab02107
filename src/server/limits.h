/* Every limit of the server, in one place. (option): hemi_http_options can set another value. */
#ifndef HEMI_SERVER_LIMITS_H
#define HEMI_SERVER_LIMITS_H

#include <stddef.h>

/* What one request may hold */
#define HEMI_SERVER_URL_BYTES_MAX    1024u  /* path and query, as sent */
#define HEMI_SERVER_HEADER_BYTES_MAX 16384u /* (option) request line and header fields */
#define HEMI_SERVER_HEADER_BYTES_MOST 49152u /* that the option can say: they have to fit in a connection's memory */
#define HEMI_SERVER_NAME_BYTES_MAX   128u   /* of a model, a module, a shape */
#define HEMI_SERVER_ROWS_MAX         4096u  /* (option) rows in one request */
#define HEMI_SERVER_REQUEST_ID_BYTES_MAX 64u /* of the header X-Request-Id */
/* A refused body up to this size is read, so that the connection lives on. */
#define HEMI_SERVER_DRAIN_BYTES_MAX ((size_t)1 << 20)

/* Connections */
#define HEMI_SERVER_PORT                        8000u
#define HEMI_SERVER_CONNECTIONS_MAX             4096u /* (option) */
#define HEMI_SERVER_CONNECTIONS_PER_ADDRESS_MAX 256u  /* (option) */
#define HEMI_SERVER_CONNECTIONS_PER_TENANT_MAX  512u  /* (option) and no more than half of all */
#define HEMI_SERVER_LISTEN_BACKLOG              511u
#define HEMI_SERVER_CONNECTION_MEMORY           ((size_t)64 << 10) /* headers and the pieces of a body */
#define HEMI_SERVER_CONNECTION_INCREMENT        ((size_t)16 << 10)

/* Time */
/* (option) From the connection, or the request line, to the last header field. */
#define HEMI_SERVER_HEADER_TIMEOUT_MS 10000u
/* With more than so many eighths of the connections open, those without an authorised request have but so long for it. */
#define HEMI_SERVER_CROWD_EIGHTHS 5u
#define HEMI_SERVER_CROWD_MS      1000u
/* (option) Between two requests of a connection; bytes do not prolong it. */
#define HEMI_SERVER_IDLE_TIMEOUT_MS 120000u
#define HEMI_SERVER_BODY_RATE_MIN   4096u  /* (option) bytes per second, of bodies in both directions */
#define HEMI_SERVER_BODY_GRACE_MS   5000u  /* (option) before the rate counts */
#define HEMI_SERVER_GONE_MS         200u   /* a request that takes longer to arrive: is its client still there? */
#define HEMI_SERVER_SWEEP_MS        250u   /* how often the clocks above are looked at */
#define HEMI_SERVER_GIVE_UP_MS      3000u  /* what is computed beyond that has so long to notice that it is to end */
#define HEMI_SERVER_LAST_ANSWERS_MS 1000u  /* and then the answers have so long to be sent */
#define HEMI_SERVER_DRAIN_MS        30000u /* (option) requests under way have this long when the server stops */

/* Work */
#define HEMI_SERVER_QUEUE_MAX         256u /* (option) requests that wait for a worker */
#define HEMI_SERVER_QUEUE_PER_TENANT_MAX 128u /* (option) of one tenant, and no more than half of all; further ones get 429 */
#define HEMI_SERVER_RETRY_AFTER_S     1u
#define HEMI_SERVER_PARALLEL_PRODUCTS 1024u /* a request with as many products is computed by all idle workers */
#define HEMI_SERVER_BODIES_BYTES_MAX  ((size_t)1 << 30) /* (option) bodies in memory, requests and replies of all connections: so much at least, ... */
#define HEMI_SERVER_BODIES_LARGEST    3u /* ... and so many of the largest key uploads that the served modules can have */
#define HEMI_SERVER_TENANT_MEMORY_PARTS 4u /* all but one of so many parts of it one tenant may have, so that others are always served */
#define HEMI_SERVER_REQUEST_MODULES    2u /* and what computing so many of the largest modules takes, for each worker */
/* A request of a circuit, whose ciphertexts are large, but for one with a single unit. */
#define HEMI_SERVER_CIRCUIT_REQUEST_BYTES_MAX ((size_t)256 << 20)
#define HEMI_SERVER_PROGRESS_MAX       1024u /* requests whose progress can be asked for, at once; of further ones it is not known */
#define HEMI_SERVER_PROGRESS_ID_BYTES  16u

/* Weights: plaintexts of packed rows, of all modules, made when they are first asked for. Modules beyond it take rows one by one. */
#define HEMI_SERVER_PACKED_BYTES_MAX  ((size_t)256 << 20)
#define HEMI_PACKED_COEFFICIENT_BYTES 6u

/* Keys */
#define HEMI_SERVER_KEYS_BYTES_MAX    ((size_t)1 << 30)  /* (option) expanded keys; the least recently used make room */
#define HEMI_SERVER_TENANT_KEYS_BYTES ((size_t)4 << 30)  /* (option) in the store, of one tenant, as uploaded */
#define HEMI_SERVER_KEY_EXPIRY_S      (30u * 86400u)     /* (option) in the store, since they were last used */
#define HEMI_SERVER_KEY_RECHECK_MS    5000u              /* keys in memory: is the store asked whether they were removed, by another server perhaps */
#define HEMI_SERVER_TENANTS_REFRESH_MS 5000u           /* tokens that were added or revoked count after so long at most */
#define HEMI_SERVER_KEEP_MS           1000u              /* how often what runs in the background looks for work ... */
#define HEMI_SERVER_EXPIRE_EVERY_S    600u               /* ... and for keys that expired */
#define HEMI_SERVER_UPLOADS_BYTES_MAX ((size_t)64 << 20) /* interrupted uploads; the oldest make room */
#define HEMI_SERVER_KEYS_LARGEST      2u /* both are at least so many times what keys for the served modules can have, but for an option */
#define HEMI_SERVER_UPLOADS_MAX       256u
#define HEMI_SERVER_UPLOAD_EXPIRY_MS  600000u

/* Batches of rows that were announced (prepared.h) */
#define HEMI_SERVER_PREPARED_BYTES_MAX   ((size_t)512 << 20) /* (option) of all clients; one client has at most half of it */
#define HEMI_SERVER_PREPARED_PER_KEY_MAX 1024u               /* batches of one client; its least recently used make room */
#define HEMI_SERVER_PREPARED_EXPIRY_MS   900000u             /* since a row of it was last computed */
#define HEMI_SERVER_PREPARES_MAX         64u                 /* announcements that wait; further ones get 503 */
#define HEMI_SERVER_PREPARES_PER_TENANT_MAX 32u              /* of one tenant; further ones get 429 */
#define HEMI_SERVER_PREPARES_PER_KEY_MAX 4u                  /* of one client, the one at work included; further ones get 429 */
/* Multiplications from which on a batch is computed by all idle workers: some milliseconds' worth. */
#define HEMI_SERVER_PARALLEL_BATCH ((size_t)1 << 26)

/* Rows that are counted (budget.h) */
/* Rows of a module are reserved from the store so many parts of its inputs at a time, and twice as many when that was used up within a second. */
#define HEMI_SERVER_BUDGET_SHARE        16u    /* and of what is left of a budget at most this part, so that other servers have theirs */
#define HEMI_SERVER_BUDGET_BLOCK_MAX    ((uint64_t)1 << 20)
#define HEMI_SERVER_BUDGET_IDLE_MS      2000u  /* what was not used for so long goes back to the store */
#define HEMI_SERVER_BUDGET_ASK_MS       1000u  /* a budget that is used up: is the store asked again whether it is still */
#define HEMI_SERVER_RETRIES_REMEMBERED  65536u /* requests of which a repetition is known */

/* Files */
#define HEMI_SERVER_FOLDERS_MAX 4096u /* names looked at in one folder */

#endif
