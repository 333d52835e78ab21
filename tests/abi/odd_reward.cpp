// A reward, one for each answer, odd in the way that a macro names; the item is called ODD.
#include <unistd.h>
#include <dsengine/reward.hpp>

#include <cstdlib>
#include <cstring>

#if defined(ODD_FLUSHES_ON_LOAD) || defined(ODD_FLUSHES_IN_SCORE) || defined(ODD_FLUSHES_IN_THREADS)
#include <immintrin.h>
static void flush_to_zero() { _mm_setcsr(_mm_getcsr() | 0x8040); }  // what -ffast-math's start code does
#endif

#if defined(ODD_FLUSHES_ON_LOAD)
[[gnu::constructor]] static void on_load() { flush_to_zero(); }
#elif defined(ODD_ABORTS_ON_LOAD)
[[gnu::constructor]] static void on_load() { abort(); }
#elif defined(ODD_EXITS_ON_LOAD)
[[gnu::constructor]] static void on_load() { _exit(0); }
#elif defined(ODD_HANGS_ON_LOAD)
[[gnu::constructor]] static void on_load() {
  for (;;) pause();
}
#elif defined(ODD_LOUD_ON_LOAD)
[[gnu::constructor]] static void on_load() { [[maybe_unused]] const auto n = write(1, "loud\n", 5); }
#endif

struct Odd {
  static constexpr const char* summary = "odd";
#ifdef ODD_OWN_KEYS
  // Options that the engine has keys of the names of, of other types and with other defaults.
  std::string deadline;
  bool on_failure;
  double max_failures;
  explicit Odd(dse::Options& o)
      : deadline(o.string("deadline", "friday", "of its own")),
        on_failure(o.boolean("on_failure", false, "of its own")),
        max_failures(o.real("max_failures", 0.5, "of its own")) {}
#else
  explicit Odd(dse::Options&) {}
#endif
#ifdef ODD_NEVER_RETURNS
  // After so many answers.
  const char* const given = getenv("DSE_ODD_ANSWERS");
  int answers = given ? atoi(given) : 0;
#endif

  float score(const dse::Answer& a) {
#if defined(ODD_FLUSHES_IN_SCORE)
    flush_to_zero();
#elif defined(ODD_FLUSHES_IN_THREADS)
    dse::parallel_for(0, 64, 1, [](int64_t, int64_t) { flush_to_zero(); });
#elif defined(ODD_INFINITE)
    if ((a.token_count + int64_t(std::strlen(a.reply))) % 2 == 1) return float(1e300 * double(a.token_count));
#elif defined(ODD_ALWAYS_INFINITE)
    return -float(1e300 * double(a.token_count));
#elif defined(ODD_LARGE)
    return 3e38f;
#elif defined(ODD_NEVER_RETURNS)
    while (answers-- <= 0) sleep(1), answers = 0;  // a signal ends a sleep, not this
#elif defined(ODD_OWN_KEYS)
    return deadline == "monday" && on_failure && max_failures == 2.5 ? 1 : -1;
#endif
    return -float(a.token_count);
  }
};

#ifdef ODD_WITHOUT_NOTE  // as the SDK built it before there were notes
DSE_PLUGIN(ODD, "1.0", items.push_back(dse::reward_item<Odd>(ODD)))
#elif defined(ODD_WRONG_NOTE)
DSE_ITEM_NOTE("reward", "another", "1.0", "");
DSE_PLUGIN(ODD, "1.0", items.push_back(dse::reward_item<Odd>(ODD)))
#else
DSE_REWARD(ODD, Odd)
#endif
