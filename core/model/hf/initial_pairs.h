// Adapters whose first pairs came out of the base: PEFT's "pissa" and "olora" (AdapterSettings::init). Their base is
// what was left of it, and PEFT makes that anew each time such an adapter is loaded.
//
//   model.add_adapter(std::move(adapter));              // settings().init == "pissa"
//   take_out_initial_pairs(model, directory.string());  // then its pairs may be read
#pragma once
#include <string>

#include "model/model.h"

namespace dsengine {

// Takes from each adapted weight W [out, in] the pair that PEFT begins with: of pissa the part of the r largest
// singular values (Meng et al. 2024), of olora scale times the first r columns of QR (Büyükakyüz 2024). UserError,
// begun with `where`, where a rank is larger than the weight's.
void take_out_initial_pairs(Model& model, const std::string& where);

}  // namespace dsengine
