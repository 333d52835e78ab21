// A rational number of any size, compared exactly.
//
//   ExactNumber::decimal("0.50", 0) == ExactNumber::decimal("5", -1)             // 0.5
//
// Powers of ten are kept apart, so that 1e999999999 costs no more than 1.
#pragma once
#include <boost/multiprecision/cpp_int.hpp>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

namespace {

class ExactNumber {
 public:
  static constexpr size_t kMostDigits = 10'000;
  static constexpr size_t kMostExponentDigits = 15;

  // Digits with at most one point, times 10^exponent; what else stands in `digits` parts thousands and is passed over.
  // Nothing where there are more digits than kMostDigits.
  static std::optional<ExactNumber> decimal(std::string_view digits, int64_t exponent) {
    std::string plain;
    bool fraction = false;
    for (const char c : digits) {
      if (c == '.') fraction = true;
      if (c < '0' || c > '9') continue;
      plain += c, exponent -= fraction;
    }
    plain.erase(0, std::min(plain.find_first_not_of('0'), plain.size()));  // a leading zero would mean octal
    if (plain.size() > kMostDigits) return std::nullopt;
    ExactNumber number;
    number.top_ = Integer(plain.empty() ? "0" : plain), number.exponent_ = exponent;
    return number;
  }

  bool is_zero() const { return top_ == 0; }
  ExactNumber negated() const {
    ExactNumber number = *this;
    number.top_ = -top_;
    return number;
  }
  // `divisor` is not zero.
  ExactNumber operator/(const ExactNumber& divisor) const {
    ExactNumber number = *this;
    number.top_ *= divisor.bottom_, number.bottom_ *= divisor.top_, number.exponent_ -= divisor.exponent_;
    return number;
  }
  // The exponents are close to each other.
  ExactNumber operator+(const ExactNumber& other) const {
    ExactNumber number;
    number.exponent_ = std::min(exponent_, other.exponent_);
    number.top_ = raised(top_, exponent_ - number.exponent_) * other.bottom_ +
                  raised(other.top_, other.exponent_ - number.exponent_) * bottom_;
    number.bottom_ = bottom_ * other.bottom_;
    return number;
  }

  bool operator==(const ExactNumber& other) const {
    const Integer left = top_ * other.bottom_, right = other.top_ * bottom_;
    if (left == 0 || right == 0) return left == right;
    const int64_t apart = exponent_ - other.exponent_;
    // Neither product has so many digits that a factor of more than that could be made up for.
    if (std::abs(apart) > int64_t(3 * kMostDigits)) return false;
    return apart >= 0 ? raised(left, apart) == right : left == raised(right, -apart);
  }

 private:
  using Integer = boost::multiprecision::cpp_int;
  static Integer raised(const Integer& number, int64_t tens) {
    return number * boost::multiprecision::pow(Integer(10), unsigned(tens));
  }
  Integer top_ = 0, bottom_ = 1;
  int64_t exponent_ = 0;
};

}  // namespace
