// Forward-mode differentiation: a value and its derivatives by N inputs, carried through arithmetic.
//
//   dse::Dual<2> x = dse::Dual<2>::input(3.0, 0), y = dse::Dual<2>::input(2.0, 1);
//   auto z = exp(x) * y;          // z.value, z.slope[0] = exp(3) * 2, z.slope[1] = exp(3)
//
// A loss written once as a template over this class yields the loss and its exact gradient. At a kink
// (max of equal values, the edge of a clamp) the derivative of the first argument, or of the inside, is taken.
#pragma once
#include <array>
#include <cmath>

namespace [[gnu::visibility("hidden")]] dse {

template <int N>
struct Dual {
  double value = 0;
  std::array<double, N> slope{};

  Dual() = default;
  Dual(double constant) : value(constant) {}  // NOLINT: a constant is a dual number without slope
  static Dual input(double value, int index) {
    Dual x(value);
    x.slope[index] = 1;
    return x;
  }
  // f(value) with derivative df: the chain rule for functions of one number.
  Dual chain(double f, double df) const {
    Dual y(f);
    for (int i = 0; i < N; ++i) y.slope[i] = df == 0 ? 0 : df * slope[i];
    return y;
  }

  friend Dual operator+(const Dual& a, const Dual& b) { return combine(a, b, a.value + b.value, 1, 1); }
  friend Dual operator-(const Dual& a, const Dual& b) { return combine(a, b, a.value - b.value, 1, -1); }
  friend Dual operator*(const Dual& a, const Dual& b) { return combine(a, b, a.value * b.value, b.value, a.value); }
  friend Dual operator/(const Dual& a, const Dual& b) {
    return combine(a, b, a.value / b.value, 1 / b.value, -a.value / (b.value * b.value));
  }
  friend Dual operator-(const Dual& a) { return a.chain(-a.value, -1); }
  Dual& operator+=(const Dual& b) { return *this = *this + b; }
  Dual& operator-=(const Dual& b) { return *this = *this - b; }
  Dual& operator*=(const Dual& b) { return *this = *this * b; }
  friend bool operator<(const Dual& a, const Dual& b) { return a.value < b.value; }
  friend bool operator>(const Dual& a, const Dual& b) { return a.value > b.value; }

  friend Dual exp(const Dual& a) {
    const double e = std::exp(a.value);
    return a.chain(e, e);
  }
  friend Dual log(const Dual& a) { return a.chain(std::log(a.value), 1 / a.value); }
  friend Dual sqrt(const Dual& a) {
    const double r = std::sqrt(a.value);
    return a.chain(r, 0.5 / r);
  }
  friend Dual tanh(const Dual& a) {
    const double t = std::tanh(a.value);
    return a.chain(t, 1 - t * t);
  }
  friend Dual abs(const Dual& a) { return a.value < 0 ? -a : a; }
  friend Dual square(const Dual& a) { return a * a; }
  friend Dual max(const Dual& a, const Dual& b) { return a.value >= b.value ? a : b; }
  friend Dual min(const Dual& a, const Dual& b) { return a.value <= b.value ? a : b; }
  friend Dual clamp(const Dual& a, double low, double high) {
    return a.value < low ? Dual(low) : a.value > high ? Dual(high) : a;
  }
  // log(1 / (1 + exp(-a))), without overflow.
  friend Dual log_sigmoid(const Dual& a) {
    const double e = std::exp(-std::abs(a.value));
    return a.chain(std::min(a.value, 0.0) - std::log1p(e), (a.value >= 0 ? e : 1.0) / (1 + e));
  }
  friend Dual sigmoid(const Dual& a) { return exp(log_sigmoid(a)); }

 private:
  static Dual combine(const Dual& a, const Dual& b, double f, double da, double db) {
    Dual y(f);
    for (int i = 0; i < N; ++i) y.slope[i] = da * a.slope[i] + db * b.slope[i];
    return y;
  }
};

}  // namespace dse
