#include "product.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>

#include "gpu.h"

namespace gpu {
namespace {

// The library's functions, by the names that its header declares them with.
class CublasLt {
 public:
  static const CublasLt& get() {
    static const CublasLt library;
    return library;
  }
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) product_create;
  decltype(&cublasLtMatmulDescDestroy) product_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) product_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;

 private:
  CublasLt() {
    void* const library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library) throw dse::Unsupported(std::string("machines without cuBLASLt: ") + dlerror());
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (!function) throw dse::Unsupported(std::string("a cuBLASLt without ") + name);
    };
    find(create, "cublasLtCreate"), find(matmul, "cublasLtMatmul");
    find(product_create, "cublasLtMatmulDescCreate"), find(product_destroy, "cublasLtMatmulDescDestroy");
    find(product_set, "cublasLtMatmulDescSetAttribute");
    find(layout_create, "cublasLtMatrixLayoutCreate"), find(layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(preference_create, "cublasLtMatmulPreferenceCreate");
    find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
  }
};

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw dse::Failure(std::string("cuBLASLt: ") + what + " failed with status " + std::to_string(int(status)));
}

cudaDataType_t type_of(uint32_t dtype) { return dtype == DSE_F32 ? CUDA_R_32F : CUDA_R_16BF; }

// The largest power of two up to 16 that divides the address; null is aligned.
uint32_t alignment_of(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p) | 16;
  return uint32_t(address & -address);
}

// What cuBLASLt needs for a product, in its order: column by column, so that a row-major matrix is its transpose and
// c = a b becomes cᵀ = bᵀ aᵀ.
class Plan {
 public:
  Plan(const CublasLt& lt, cublasLtHandle_t handle, const Product& p) : lt_(lt) {
    check(lt.product_create(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a description");
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(p.type));
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    }
    b_ = layout(p.type, p.b_transposed ? p.inner : p.columns, p.b_transposed ? p.columns : p.inner);
    a_ = layout(p.type, p.a_transposed ? p.rows : p.inner, p.a_transposed ? p.inner : p.rows);
    c_ = layout(p.c_type, p.columns, p.rows);
    cublasLtMatmulPreference_t preference = nullptr;
    check(lt.preference_create(&preference), "a preference");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      check(lt.preference_set(preference, what, &value, sizeof value), "a preference");
    };
    // Parts of a sum are added in float32, in memory of their own, so that it has the same bits each time.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           uint32_t(CUBLASLT_REDUCTION_SCHEME_NONE) | uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(Products::kWorkspace));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.residual ? p.residual : p.c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.c));
    int found = 0;
    const cublasStatus_t status = lt.heuristic(handle, product_, b_, a_, c_, c_, preference, 1, &choice_, &found);
    lt.preference_destroy(preference);
    check(status, "the choice of a kernel");
    if (found == 0 || choice_.state != CUBLAS_STATUS_SUCCESS)
      throw dse::Failure("cuBLASLt has no kernel for a product");
  }
  ~Plan() {
    for (const auto& one : {a_, b_, c_})
      if (one) lt_.layout_destroy(one);
    if (product_) lt_.product_destroy(product_);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void run(cublasLtHandle_t handle, const Product& p) {
    if (p.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    const float one = 1, added = p.accumulate || p.residual ? 1 : 0;
    const void* const add = p.residual ? p.residual : p.c;
    check(lt_.matmul(handle, product_, &one, p.b, b_, p.a, a_, &added, add, c_, p.c, c_, &choice_.algo, p.workspace,
                     size_t(Products::kWorkspace), static_cast<cudaStream_t>(p.stream)),
          "a product");
  }

 private:
  template <class V>
  void set(cublasLtMatmulDescAttributes_t what, V value) {
    check(lt_.product_set(product_, what, &value, sizeof value), "a description");
  }
  cublasLtMatrixLayout_t layout(uint32_t type, int64_t rows, int64_t columns) const {
    cublasLtMatrixLayout_t made = nullptr;
    check(lt_.layout_create(&made, type_of(type), uint64_t(rows), uint64_t(columns), rows), "a layout");
    return made;
  }

  const CublasLt& lt_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, c_ = nullptr;
  cublasLtMatmulHeuristicResult_t choice_{};
};

}  // namespace

// One handle, and a plan for each shape that was met: the same shape always takes the same kernel.
struct Products::Plans {
  using Shape = std::tuple<int64_t, int64_t, int64_t, bool, bool, uint32_t, uint32_t, bool, bool, bool, uint32_t,
                           uint32_t, uint32_t, uint32_t, uint32_t>;
  explicit Plans(const CublasLt& library) : lt(library) {}
  const CublasLt& lt;
  cublasLtHandle_t handle = nullptr;
  std::map<Shape, Plan> made;

  // Made when the first product runs: a handle wants a card.
  cublasLtHandle_t opened() {
    if (!handle) check(lt.create(&handle), "a handle");
    return handle;
  }
  Plan& of(const Product& p) {
    const Shape shape{p.rows,
                      p.columns,
                      p.inner,
                      p.a_transposed,
                      p.b_transposed,
                      p.type,
                      p.c_type,
                      p.accumulate,
                      p.bias != nullptr,
                      p.residual != nullptr,
                      alignment_of(p.a),
                      alignment_of(p.b),
                      alignment_of(p.c),
                      alignment_of(p.residual),
                      alignment_of(p.bias)};
    const auto found = made.find(shape);
    if (found != made.end()) return found->second;
    return made.emplace(std::piecewise_construct, std::forward_as_tuple(shape), std::forward_as_tuple(lt, opened(), p))
        .first->second;
  }
};

Products::Products(const dse_operation& operation)
    : plans_(operation.device_index == DSE_PLANNED ? nullptr : new Plans(CublasLt::get())) {}
// The handle stays: it may be the last use of a card that is gone.
Products::~Products() { delete plans_; }
void Products::run(const Product& product) const { plans_->of(product).run(plans_->opened(), product); }

}  // namespace gpu
