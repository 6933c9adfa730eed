// Which SIMD targets the kernels are built for. Include it before any Highway header.
//
// The kernels keep vectors in arrays so that one source serves every register count; types without
// a size (SVE, RVV) cannot be in arrays, so Arm runs the NEON build.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
