/* Everything public, in one header. */
#ifndef HEMI_HEMI_H
#define HEMI_HEMI_H

#include "hemi/client.h"
#include "hemi/model.h"
#include "hemi/params.h"
#include "hemi/server.h"
#include "hemi/status.h"

#endif
