// Tries a kernel beside the reference: what `dsengine plugins verify` does for one.
//
//   Checks checks = verify_kernel(item);
//
// It is bound to operations of many shapes, ragged, odd and empty, on the device that it is for, and each result is
// compared with the reference's in float64 on the host. Where it claims that a row does not depend on its neighbours,
// rows are computed alone too, and have the same bits.
#pragma once
#include "plugin/item.h"
#include "plugin/verify.h"

namespace dsengine {

Checks verify_kernel(const Item& item);

}  // namespace dsengine
