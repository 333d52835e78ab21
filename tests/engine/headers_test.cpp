// Every installed header beside every other: a program may use the library and state an algorithm of its own.
#include <dsengine/abi.h>
#include <gtest/gtest.h>
#include <dsengine/algorithm.hpp>
#include <dsengine/dataset.hpp>
#include <dsengine/kernel.hpp>
#include <dsengine/model.hpp>
#include <dsengine/reward.hpp>

#include "engine/engine.h"

TEST(InstalledHeaders, StandBesideEachOther) {
  EXPECT_EQ(dse::Loading{}.head, dse::HeadKind::stored);
  EXPECT_EQ(dse::Needs{.roles = dse::actor}.roles, dse::actor);
}
