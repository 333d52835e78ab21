// The collectives against sums worked by hand, on one rank, on ranks as threads, and, where mpirun starts this program
// (CMakeLists.txt), on ranks as processes; what happens where ranks do not do the same, or one is gone.
#include "comm/communicator.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/check.h"
#include "comm/local.h"
#include "comm/threads.h"
#include "comm/world.h"

namespace dsengine {
namespace {

using testing::HasSubstr;

// Null: this process is started alone.
Communicator* processes() {
  static const auto ranks = open_world();
  return ranks->size() > 1 ? ranks.get() : nullptr;
}

class Collectives : public testing::TestWithParam<int64_t> {
 protected:
  // On one rank the local communicator and a group of one thread are to do the same.
  static void run(const std::function<void(Communicator&)>& body) {
    if (Communicator* const ranks = processes()) {
      if (ranks->size() == GetParam()) body(*ranks);
      return;
    }
    if (GetParam() == 1) {
      LocalCommunicator alone;
      body(alone);
    }
    run_ranks(GetParam(), body);
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, testing::Values(1, 2, 3, 5));

TEST_P(Collectives, AllReduceIsTheSum) {
  run([](Communicator& c) {
    const auto n = double(c.size());
    const at::Tensor x = at::arange(6, at::kFloat).view({2, 3}) + double(c.rank());
    c.all_reduce(x);
    EXPECT_TRUE(at::equal(x, at::arange(6, at::kFloat).view({2, 3}) * n + n * (n - 1) / 2));
    const at::Tensor none = at::zeros({0}, at::kFloat);
    c.all_reduce(none);
    EXPECT_EQ(none.numel(), 0);
  });
}

// In the order of ranks: (1e8 + 1) - 1e8 in float32 is 0, whoever comes first.
TEST_P(Collectives, SumsAreMadeInTheOrderOfRanks) {
  if (GetParam() != 3) return;
  for (int turn = 0; turn < 20; ++turn)
    run([&](Communicator& c) {
      if ((c.rank() + turn) % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      const float values[] = {1e8f, 1.f, -1e8f};
      const at::Tensor x = at::full({1}, values[c.rank()], at::kFloat);
      c.all_reduce(x);
      EXPECT_EQ(x.item<float>(), 0.f);
      double y[] = {c.rank() == 0 ? 1e17 : c.rank() == 1 ? 1. : -1e17};
      c.sum(y);
      EXPECT_EQ(y[0], 0);
    });
}

// Longer than what goes to all at once, and not the same number of elements for each rank; sums in the order of ranks.
TEST_P(Collectives, LongTensorsHaveTheBitsOfShortOnes) {
  run([](Communicator& c) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const auto of_rank = [&](int64_t r) {
        return at::randn({40, 257}, at::detail::createCPUGenerator(uint64_t(r + 1)), at::kDouble).to(type);
      };
      const at::Tensor x = of_rank(c.rank()), expected = of_rank(0);
      for (int64_t r = 1; r < c.size(); ++r) expected.add_(of_rank(r));
      c.all_reduce(x);
      EXPECT_TRUE(at::equal(x, expected)) << type;
    }
  });
}

TEST_P(Collectives, PartsAreScatteredAndGathered) {
  run([](Communicator& c) {
    const int64_t n = c.size();
    const at::Tensor whole = at::arange(2 * n, at::kDouble) * double(c.rank() + 1), part = at::empty({2}, at::kDouble);
    c.reduce_scatter(whole, part);
    const double sum = double(n * (n + 1)) / 2;
    EXPECT_TRUE(at::equal(part, (at::arange(2, at::kDouble) + 2 * double(c.rank())) * sum));
    const at::Tensor all = at::zeros({n, 2}, at::kDouble);
    c.all_gather(part, all);
    EXPECT_TRUE(at::equal(all.view(-1), at::arange(2 * n, at::kDouble) * sum));
    const at::Tensor in_place = at::full({n}, -1, at::kLong), own = in_place.narrow(0, c.rank(), 1).fill_(c.rank());
    c.all_gather(own, in_place);
    EXPECT_TRUE(at::equal(in_place, at::arange(n, at::kLong)));
  });
}

TEST_P(Collectives, BroadcastIsOneRanks) {
  run([](Communicator& c) {
    for (int64_t from = 0; from < c.size(); ++from) {
      const at::Tensor x = at::full({3}, c.rank(), at::kLong);
      c.broadcast(x, from);
      EXPECT_TRUE(at::equal(x, at::full({3}, from, at::kLong)));
      EXPECT_EQ(c.broadcast_bytes(fmt::format("of {}", c.rank()), from), fmt::format("of {}", from));
    }
  });
}

// Rank a sends a + 2 b numbers, a * 10 + b, to rank b: from none to many.
TEST_P(Collectives, AllToAllTakesEachRanksOwn) {
  run([](Communicator& c) {
    std::vector<at::Tensor> to, from;
    for (int64_t r = 0; r < c.size(); ++r) {
      to.push_back(at::full({c.rank() + 2 * r}, c.rank() * 10 + r, at::kFloat));
      from.push_back(at::empty({r + 2 * c.rank()}, at::kFloat));
    }
    c.all_to_all(to, from);
    for (int64_t r = 0; r < c.size(); ++r)
      EXPECT_TRUE(at::equal(from[size_t(r)], at::full({r + 2 * c.rank()}, r * 10 + c.rank(), at::kFloat)));
  });
}

TEST_P(Collectives, NumbersBytesAndWishesAreAgreed) {
  run([](Communicator& c) {
    const auto n = double(c.size());
    double sums[] = {double(c.rank()), 1}, most[] = {double(c.rank()), -double(c.rank()), -5};
    c.sum(sums), c.max(most);
    EXPECT_THAT(sums, testing::ElementsAre(n * (n - 1) / 2, n));
    EXPECT_THAT(most, testing::ElementsAre(n - 1, 0, -5));
    c.sum({});
    std::vector<std::string> expected;
    for (int64_t r = 0; r < c.size(); ++r) expected.push_back(std::string(size_t(r), '\0') + "x");
    EXPECT_EQ(c.gather_bytes(expected[size_t(c.rank())]), expected);
    c.barrier();
    EXPECT_FALSE(c.agree(false));
    EXPECT_TRUE(c.agree(true));
    EXPECT_TRUE(c.agree(c.rank() + 1 == c.size()));
  });
}

// A barrier is left by none before all have come.
TEST_P(Collectives, BarrierHoldsUntilAllHaveCome) {
  std::atomic<int64_t> came{0};
  run_ranks(GetParam(), [&](Communicator& c) {
    for (int64_t turn = 1; turn <= 200; ++turn) {
      ++came;
      c.barrier();
      EXPECT_GE(came, turn * c.size());
      c.barrier();
    }
  });
}

// Many in a row, without a wait between: no rank may see another's next offer.
TEST_P(Collectives, FollowEachOtherClosely) {
  run([](Communicator& c) {
    const auto n = double(c.size());
    for (int turn = 0; turn < 500; ++turn) {
      double x[] = {double(turn) + double(c.rank())};
      c.sum(x);
      ASSERT_EQ(x[0], n * turn + n * (n - 1) / 2);
    }
  });
}

TEST(Ranks, OneThatFailsIsNamedToThoseThatWait) {
  std::atomic<int> told{0};
  const auto body = [&](Communicator& c) {
    c.barrier();
    if (c.rank() == 1) throw UserError("out of paper");
    try {
      c.barrier();
    } catch (const RankLost& e) {
      EXPECT_THAT(e.what(), HasSubstr("rank 1: out of paper"));
      EXPECT_EQ(e.rank(), 1);
      EXPECT_THROW(c.agree(true), RankLost) << "and from then on";
      ++told;
      throw;
    }
  };
  EXPECT_THROW(run_ranks(3, body), UserError);
  EXPECT_EQ(told, 2);
}

TEST(Ranks, OneThatEndsTooEarlyHangsNobody) {
  try {
    run_ranks(3, [](Communicator& c) {
      if (c.rank() != 2) c.barrier();
    });
    FAIL();
  } catch (const RankLost& e) {
    EXPECT_THAT(e.what(), HasSubstr("rank 2: has ended"));
  }
}

// What is passed by one rank after the last collective takes nothing from the others.
TEST(Ranks, TheLastCollectiveIsWholeForAll) {
  for (int turn = 0; turn < 200; ++turn)
    run_ranks(3, [](Communicator& c) {
      double x[] = {1};
      c.sum(x);
      EXPECT_EQ(x[0], 3);
    });
}

// InternalError on every rank, whatever the rank that differs; the communicators can be used afterwards.
TEST_P(Collectives, ThatDoNotFitAreRefusedOnAll) {
  if (GetParam() != 3) return;
  const std::vector<std::function<void(Communicator&, bool)>> calls{
      [](Communicator& c, bool odd) {
        double x[] = {1, 2};
        odd ? c.max(x) : c.sum(x);
      },
      [](Communicator& c, bool odd) {
        double x[] = {1, 2};
        c.sum(std::span(x).first(odd ? 1 : 2));
      },
      [](Communicator& c, bool odd) { c.all_reduce(at::zeros({odd ? 2 : 3}, at::kFloat)); },
      [](Communicator& c, bool odd) { c.all_reduce(at::zeros({2}, odd ? at::kDouble : at::kFloat)); },
      [](Communicator& c, bool odd) { c.broadcast(at::zeros({2}, at::kFloat), odd ? 0 : 1); },
      [](Communicator& c, bool odd) {
        if (odd)
          c.barrier();
        else
          c.all_reduce(at::zeros({2}, at::kFloat));
      },
  };
  for (const auto& call : calls)
    for (int64_t odd = 0; odd < 3; ++odd)
      run([&](Communicator& c) {
        EXPECT_THROW(call(c, c.rank() == odd), InternalError);
        EXPECT_TRUE(c.agree(c.rank() == 0));
      });
}

TEST(Ranks, ArgumentsAreCheckedBeforeAnyoneWaits) {
  LocalCommunicator alone;
  EXPECT_THROW(alone.broadcast(at::zeros({1}), 1), InternalError);
  EXPECT_THROW(alone.all_gather(at::zeros({2}), at::zeros({3})), InternalError);
  ThreadGroup group(2);
  EXPECT_THROW(group.rank(0).broadcast(at::zeros({1}), 2), InternalError);
  EXPECT_THROW(group.rank(0).reduce_scatter(at::zeros({3}), at::zeros({1})), InternalError);
  EXPECT_THROW(ThreadGroup(0), InternalError);
}

TEST_P(Collectives, AnErrorOfOneIsAnErrorOfAll) {
  if (GetParam() != 3) return;
  std::atomic<int> told{0};
  run([&](Communicator& c) {
    c.together([] {});
    const auto fails = [&] {
      c.together([&] {
        if (c.rank() == 2) throw UserError("the loss is not finite");
      });
    };
    if (c.rank() == 2) {
      EXPECT_THROW(fails(), UserError);
    } else {
      try {
        fails();
      } catch (const RankLost& e) {
        EXPECT_THAT(e.what(), HasSubstr("rank 2: the loss is not finite"));
        ++told;
      }
    }
    EXPECT_TRUE(c.agree(c.rank() == 0)) << "nobody is lost";
  });
  if (!processes()) {
    EXPECT_EQ(told, 2);
  }
  LocalCommunicator alone;
  EXPECT_THROW(alone.together([] { throw UserError(""); }), UserError);
}

// Where the others are in a collective of the body, the cause is told still.
TEST(Together, TellsTheCauseBesideACollective) {
  std::atomic<int> causes{0}, others{0};
  const auto body = [&](Communicator& c) {
    try {
      c.together([&] {
        if (c.rank() == 1) throw UserError("the cause");
        double one[1] = {1};
        c.sum(one);
      });
    } catch (const UserError& e) {
      causes += std::string(e.what()) == "the cause";
      throw;
    } catch (const std::exception&) {
      ++others;
      throw;
    }
  };
  EXPECT_ANY_THROW(run_ranks(2, body));
  EXPECT_EQ(causes, 1);
  EXPECT_EQ(others, 1);
}

}  // namespace
}  // namespace dsengine
