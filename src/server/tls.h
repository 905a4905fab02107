/* TLS: this server's certificate and key, which can be exchanged while it runs. Through GnuTLS, inside libmicrohttpd. */
#ifndef HEMI_SERVER_TLS_H
#define HEMI_SERVER_TLS_H

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#include "hemi/status.h"

/* TLS 1.2 and 1.3, no ciphers below 128 bits. */
#define HEMI_TLS_PRIORITIES "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* Reads PEM files: the chain, the server's own certificate first, and its key. libmicrohttpd's callback knows no context, so that a process has one
 * certificate: ERR_STATE when it has one already. ERR_IO, ERR_FORMAT say which file is wrong and why. */
HEMI_CHECK hemi_status hemi_tls_start(const char *certificate, const char *key, hemi_error *err);
/* Reads the same files anew: for connections from now on. Where that fails, all stays as it was. OK where there is no TLS. */
HEMI_CHECK hemi_status hemi_tls_reload(hemi_error *err);
void hemi_tls_stop(void);
/* For MHD_OPTION_HTTPS_CERT_CALLBACK (a gnutls_certificate_retrieve_function2). */
int hemi_tls_retrieve(gnutls_session_t session, const gnutls_datum_t *request, int requests, const gnutls_pk_algorithm_t *algorithms,
                      int algorithm_count, gnutls_pcert_st **certificates, unsigned *count, gnutls_privkey_t *key);

#endif
