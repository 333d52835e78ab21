// A choice that texts name, by one table of its names: configuration keys, options of commands, words in JSON.
//
//   enum class Schedule { cosine, linear, constant };
//   template <>
//   inline constexpr auto kChoices<Schedule> = std::to_array<const char*>({"cosine", "linear", "constant"});
//   name_of(Schedule::linear);               // "linear"
//   choice_named<Schedule>("linear");        // Schedule::linear; nothing where no choice has that name
//
// The names stand in the order of the enum, whose values are 0, 1, 2 …
#pragma once
#include <array>
#include <optional>
#include <string_view>
#include <type_traits>

namespace dsengine {

template <class E>
inline constexpr auto kChoices = std::array<const char*, 0>{};

template <class E>
concept Choice = std::is_enum_v<E> && !kChoices<E>.empty();

template <Choice E>
constexpr const char* name_of(E choice) {
  return kChoices<E>[static_cast<size_t>(choice)];
}

template <Choice E>
std::optional<E> choice_named(std::string_view name) {
  for (size_t i = 0; i < kChoices<E>.size(); ++i)
    if (kChoices<E>[i] == name) return static_cast<E>(i);
  return std::nullopt;
}

}  // namespace dsengine
