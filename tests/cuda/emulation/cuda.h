// Stands in for the toolkit's header where kernels run on the host: see emulation.h.
#pragma once

struct CUtensorMap {};
