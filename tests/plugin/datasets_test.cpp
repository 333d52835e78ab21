// The shipped dataset adapters by themselves: how text is cut, how ranked answers become pairs, what they refuse.
#include <zlib.h>

#include "base/json.h"
#include "plugin/fixtures.h"
#include "plugin/instance.h"
#include "plugin/registry.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class Datasets : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& text) {
    fs::create_directories((folder.path() / name).parent_path());
    write_text(folder.path() / name, text);
    return folder.path() / name;
  }
  DatasetInstance open(const std::string& reader, const fs::path& path, const OptionValues& options = {}) {
    const Item& item = registry.find(DSE_DATASET, reader);
    return {item, OptionSet(item, options), path};
  }
  std::vector<std::string> texts(const fs::path& path, const OptionValues& options) {
    auto data = open("text", path, options);
    std::vector<std::string> all;
    for (int64_t i = 0; i < data.size(); ++i) {
      const auto record = data.get(i);
      EXPECT_EQ(record.kind, uint32_t{DSE_RECORD_TEXT});
      all.push_back(record.text);
    }
    return all;
  }
  std::vector<std::string> cut(const std::string& text, const char* split, int64_t chunk = 2000, int64_t least = 1) {
    return texts(write("cut.txt", text),
                 {{"split", {std::string(split), ""}}, {"chunk_bytes", {chunk, ""}}, {"min_bytes", {least, ""}}});
  }
  std::string text_error(const std::string& text, const OptionValues& options = {}) {
    const auto path = write("bad.txt", text);
    return error_of([&] { open("text", path, options); });
  }

  const ScratchFolder folder;
  const PluginRegistry registry{{fs::path(DSE_BINARY_DIR) / "lib/dsengine"}};
};

TEST_F(Datasets, TextIsCutAsAsked) {
  const std::string text =
      "\xEF\xBB\xBF"
      "one\ntwo \n\n \t\nthree\r\nfour\r\n\r\n\nfive";
  EXPECT_THAT(cut(text, "file"), ElementsAre("one\ntwo \n\n \t\nthree\r\nfour\r\n\r\n\nfive"));
  EXPECT_THAT(cut(text, "paragraph"), ElementsAre("one\ntwo ", "three\r\nfour", "five"));
  EXPECT_THAT(cut(text, "line"), ElementsAre("one", "two ", "three", "four", "five"));
  EXPECT_THAT(cut(text, "line", 2000, 4), ElementsAre("two ", "three", "four", "five"));
  EXPECT_THAT(cut("  lead\n", "paragraph"), ElementsAre("  lead"));
}

TEST_F(Datasets, ChunksEndBeforeWhiteSpaceElseBetweenCharacters) {
  // Ten bytes: "aaa bbb cc" would split the word cc…, so the cut is before its space.
  EXPECT_THAT(cut("aaa bbb cccc dd", "chunk", 10), ElementsAre("aaa bbb", " cccc dd"));
  // Exactly full: the white space begins at byte 10.
  EXPECT_THAT(cut("aaaaabbbbb cc", "chunk", 10), ElementsAre("aaaaabbbbb", " cc"));
  // White space in the first half alone does not cut it short.
  EXPECT_THAT(cut("a bbbbbbbbbbbbb", "chunk", 10), ElementsAre("a bbbbbbbb", "bbbbb"));
  // Characters of three bytes: three of them fit in ten.
  const std::string euro = "\xE2\x82\xAC";
  EXPECT_THAT(cut(euro + euro + euro + euro, "chunk", 10), ElementsAre(euro + euro + euro, euro));
  // Nothing is lost.
  std::string long_text, joined;
  for (int i = 0; i < 3000; ++i) long_text += (i % 7 ? "w" + std::to_string(i * i) : euro) + (i % 11 ? " " : "\n\n");
  for (const auto& piece : cut(long_text, "chunk", 97)) {
    EXPECT_LE(piece.size(), 97u);
    EXPECT_GE(piece.size(), 48u - (joined.size() > long_text.size() - 97 ? 48u : 0u));
    joined += piece;
  }
  EXPECT_EQ(joined, long_text);
}

TEST_F(Datasets, TextOfAFolderIsReadInOrderOfNames) {
  write("all/b.txt", "second"), write("all/a.md", "first"), write("all/c.jsonl", "not text"),
      write("all/in/d.txt", "in");
  const auto zipped = (folder.path() / "all/c.txt.gz").string();
  gzFile file = gzopen(zipped.c_str(), "wb");
  gzputs(file, "third"), gzclose(file);
  EXPECT_THAT(texts(folder.path() / "all", {}), ElementsAre("first", "second", "third"));
  EXPECT_THAT(texts(folder.path() / "all", {{"recursive", {true, ""}}}), ElementsAre("first", "second", "third", "in"));
  EXPECT_THAT(texts(zipped, {}), ElementsAre("third"));
  write("all/empty.txt", "");
  EXPECT_EQ(texts(folder.path() / "all", {}).size(), 3u);
}

TEST_F(Datasets, TextThatIsNoneIsRefusedByFileAndByte) {
  EXPECT_THAT(text_error("abc\xFF"), HasSubstr("bad.txt: byte 3 of the text is not UTF-8"));
  EXPECT_THAT(text_error("a\xC0\x80"), HasSubstr("byte 1"));         // overlong
  EXPECT_THAT(text_error("ab\xED\xA0\x80"), HasSubstr("byte 2"));    // a surrogate
  EXPECT_THAT(text_error("\xF4\x90\x80\x80"), HasSubstr("byte 0"));  // beyond U+10FFFF
  EXPECT_THAT(text_error("abc\xE2\x82"), HasSubstr("byte 3"));       // cut off
  EXPECT_EQ(text_error("\xF4\x8F\xBF\xBF \xEE\x80\x80 \xF0\x90\x80\x80 \xE0\xA0\x80 \xC2\x80"), "");
  EXPECT_THAT(text_error(std::string("ab\0c", 4)), HasSubstr("byte 2 of the text is zero"));
  EXPECT_THAT(text_error(""), HasSubstr("bad.txt: no text is in it"));
  EXPECT_THAT(text_error(" \n\t\n"), HasSubstr("no text is in it"));
  EXPECT_THAT(text_error("ab\n", {{"min_bytes", {int64_t{9}, ""}}}), HasSubstr("1 records under min_bytes = 9"));
  fs::create_directories(folder.path() / "none");
  EXPECT_THAT(error_of([&] { open("text", folder.path() / "none"); }), HasSubstr("no .txt, .md or .gz file"));
  EXPECT_THAT(error_of([&] { open("text", "/nowhere.txt"); }), HasSubstr("/nowhere.txt"));
}

// (chosen, rejected) and the weight of each record.
struct Ranked : Datasets {
  std::vector<std::pair<std::string, std::string>> pairs;
  std::vector<double> weights;
  void read(const std::string& lines, const OptionValues& options = {}) {
    auto data = open("jsonl", write("ranked.jsonl", lines), options);
    pairs.clear(), weights.clear();
    for (int64_t i = 0; i < data.size(); ++i) {
      const auto record = data.get(i);
      EXPECT_EQ(record.kind, uint32_t{DSE_RECORD_PAIR});
      EXPECT_STREQ(record.prompt, "p");
      pairs.emplace_back(record.chosen, record.rejected), weights.push_back(record.weight);
    }
  }
  std::string ranked_error(const std::string& ranked) {
    return error_of([&] { read("{\"prompt\": \"p\", \"ranked\": [\"a\", \"b\"]}\n" + ranked + "\n"); });
  }
};

TEST_F(Ranked, EveryPairOfTwoRanksSharesTheRecordsWeight) {
  read(R"({"prompt": "p", "ranked": ["a", "b", "c"], "weight": 1.5})"
       "\n"
       R"({"prompt": "p", "chosen": "x", "rejected": "y"})");
  EXPECT_THAT(pairs, ElementsAre(Pair("a", "b"), Pair("a", "c"), Pair("b", "c"), Pair("x", "y")));
  EXPECT_THAT(weights, ElementsAre(0.5, 0.5, 0.5, 1));
}

TEST_F(Ranked, TiesMakeNoPair) {
  read(R"({"prompt": "p", "ranked": [["a", "b"], "c", ["d"]]})");
  EXPECT_THAT(pairs, ElementsAre(Pair("a", "c"), Pair("a", "d"), Pair("b", "c"), Pair("b", "d"), Pair("c", "d")));
  EXPECT_THAT(weights, ElementsAre(0.2, 0.2, 0.2, 0.2, 0.2));
  read(R"({"prompt": "p", "order": ["a", ["b"]]})", {{"ranked_field", {std::string("order"), ""}}});
  EXPECT_THAT(pairs, ElementsAre(Pair("a", "b")));
}

TEST_F(Ranked, TheBestAloneIsACompletion) {
  auto data = open("jsonl", write("best.jsonl", R"({"prompt": "p", "ranked": [["a", "b"], "c"], "source": "s"})"),
                   {{"ranked_as", {std::string("best"), ""}}});
  ASSERT_EQ(data.size(), 1);
  const auto record = data.get(0);
  EXPECT_EQ(record.kind, uint32_t{DSE_RECORD_COMPLETION});
  EXPECT_STREQ(record.completion, "a");
  EXPECT_STREQ(record.metadata, R"({"source":"s"})");
  EXPECT_EQ(record.weight, 1);
}

TEST_F(Ranked, WhatIsNoRankingIsRefusedByLine) {
  const auto starts = [](const char* what) { return AllOf(HasSubstr("ranked.jsonl:2: "), HasSubstr(what)); };
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": ["a"]})"), starts("two ranks"));
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": [["a", "b"]]})"), starts("two ranks"));
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": []})"), starts("two ranks"));
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": ["a", 3]})"), starts("should be a string"));
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": ["a", ["b", ["c"]]]})"), starts("should be a string"));
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": ["a", []]})"), starts("empty list"));
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": "ab"})"), starts("list answers"));
  EXPECT_THAT(ranked_error(R"({"ranked": ["a", "b"]})"), starts("'prompt' is missing"));
  EXPECT_THAT(ranked_error(R"({"prompt": "p", "ranked": ["a", "b"], "chosen": "a"})"), starts("beside"));
}

// Records of JSON lines as "role: content" lines and what follows.
struct Lines : Datasets {
  std::vector<std::string> read(const std::string& lines, const OptionValues& options = {}) {
    auto data = open("jsonl", write("lines.jsonl", lines), options);
    std::vector<std::string> all;
    for (int64_t i = 0; i < data.size(); ++i) {
      const auto record = data.get(i);
      const char* kinds[] = {"", "text", "messages", "prompt", "completion", "pair"};
      std::string text = kinds[record.kind];
      for (const auto& m : data.messages(record)) text += fmt::format("|{}: {}", m.role, m.content);
      for (const char* field : {record.prompt, record.completion, record.chosen, record.rejected})
        if (field) text += fmt::format("|{}", field);
      all.push_back(text + (record.metadata ? fmt::format("|{}", record.metadata) : ""));
    }
    return all;
  }
  std::string lines_error(const std::string& line) {
    return error_of([&] { read("{\"prompt\": \"p\"}\n" + line + "\n"); });
  }
  const std::string asked = R"([{"role": "user", "content": "q"}])",
                    answer = R"([{"role": "assistant", "content": "a"}])",
                    both = R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])",
                    other = R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}])";
};

// Columns of ultrachat_200k, ultrafeedback_binarized and TRL's conversational data.
TEST_F(Lines, APromptBesideTurnsIsOneOfThem) {
  EXPECT_THAT(read(R"({"prompt": "q", "prompt_id": "x", "messages": )" + both + "}"),
              ElementsAre(R"(messages|user: q|assistant: a|{"prompt_id":"x"})"));
  EXPECT_THAT(read(R"({"prompt": " q\n", "messages": )" + asked + "}"), ElementsAre("messages|user: q"));
  EXPECT_THAT(read(R"({"prompt": )" + asked + "}"), ElementsAre("prompt|user: q"));
  EXPECT_THAT(read(R"({"prompt": )" + asked + R"(, "completion": )" + answer + R"(, "label": false})"),
              ElementsAre(R"(completion|user: q|a|{"label":false})"));
  EXPECT_THAT(read(R"({"prompt": "q", "completion": "a", "messages": )" + both + "}"),
              ElementsAre("completion|user: q|a"));
  const auto says = [&](const std::string& line) { return lines_error(line); };
  EXPECT_THAT(says(R"({"prompt": "a", "messages": )" + both + "}"),
              AllOf(HasSubstr("lines.jsonl:2: "), HasSubstr("'prompt' is not in the turns beside it")));
  EXPECT_THAT(says(R"({"prompt": )" + other + R"(, "messages": )" + both + "}"), HasSubstr("not in the turns"));
  EXPECT_THAT(says(R"({"prompt": "q", "completion": )" + both + "}"), HasSubstr("one turn of the assistant"));
}

TEST_F(Lines, AnswersOfPairsMayBeTurns) {
  const std::string expected = "pair|user: q|a|b", prompt = R"("prompt": "q")", more = R"(, "score": 1.50)";
  const std::string full = R"("chosen": )" + both + R"(, "rejected": )" + other;
  const std::string alone = R"("chosen": )" + answer + R"(, "rejected": [{"role": "assistant", "content": "b"}])";
  EXPECT_THAT(read("{" + full + "}"), ElementsAre(expected));
  EXPECT_THAT(read("{" + prompt + ", " + full + more + "}"), ElementsAre(expected + R"(|{"score":1.50})"));
  EXPECT_THAT(read("{" + prompt + ", " + full + R"(, "messages": )" + both + "}"), ElementsAre(expected));
  EXPECT_THAT(read("{\"prompt\": " + asked + ", " + full + "}"), ElementsAre(expected));
  EXPECT_THAT(read("{\"prompt\": " + asked + ", " + alone + "}"), ElementsAre(expected));
  EXPECT_THAT(read("{\"messages\": " + asked + ", " + alone + "}"), ElementsAre(expected));
  EXPECT_THAT(read("{" + prompt + ", " + alone + "}"), ElementsAre("pair|q|a|b"));
  // Messages that stand for the prompt and hold the better answer too.
  EXPECT_THAT(read(R"({"chosen": "a", "rejected": "b", "messages": )" + both + "}"), ElementsAre(expected));
  EXPECT_THAT(read(R"({"ranked": ["a", "b"], "prompt": "q", "messages": )" + both + "}"), ElementsAre(expected));
  EXPECT_THAT(lines_error("{" + full + R"(, "prompt": "another"})"), HasSubstr("not in the turns"));
  EXPECT_THAT(lines_error("{" + full + R"(, "messages": )" + other + "}"), HasSubstr("'messages' is neither"));
  EXPECT_THAT(lines_error("{" + alone + "}"), HasSubstr("'prompt' is missing"));
  EXPECT_THAT(lines_error(R"({"prompt": "q", "chosen": "a", "rejected": )" + other + "}"), HasSubstr("'rejected'"));
}

// h: human, a: assistant, by turns.
std::string transcripts(const std::vector<std::string>& chosen, const std::vector<std::string>& rejected) {
  const auto text = [](const std::vector<std::string>& turns) {
    std::string all;
    for (const auto& turn : turns) all += (turn[0] == 'h' ? "\\n\\nHuman: " : "\\n\\nAssistant: ") + turn.substr(1);
    return all;
  };
  return "{\"chosen\": \"" + text(chosen) + "\", \"rejected\": \"" + text(rejected) + "\"}\n";
}

TEST_F(Lines, ConversationsThatPartAtNoAnswerAreLeftOutAndNamed) {
  const std::string good = transcripts({"hA", "aB", "hC", "aD"}, {"hA", "aB", "hC", "aE"});
  const std::string kept = "pair|user: A|assistant: B|user: C|D|E";
  EXPECT_THAT(read(good), ElementsAre(kept));
  EXPECT_THAT(read(transcripts({"hA", "aB", "hC"}, {"hA", "aD", "hE", "aF"})), ElementsAre("pair|user: A|B|D"));
  for (const auto& bad : {transcripts({"hA", "aB", "hC", "aD"}, {"hA", "aB", "hX", "aE"}),  // another question
                          transcripts({"hA", "aB", "hC"}, {"hA", "aB", "hC", "aD"}),        // the other's beginning
                          transcripts({"hA", "aB"}, {"hA", "aB"}),                          // alike
                          transcripts({"hA", "hB", "aC"}, {"hA", "aD"}),           // a question beside an answer
                          transcripts({"hA", "aB"}, {"hX", "aC"}),                 // nothing shared
                          transcripts({"hA", "aB", "aC"}, {"hA", "aB", "aD"})}) {  // an answer to an answer
    testing::internal::CaptureStderr();
    testing::internal::CaptureStdout();
    EXPECT_THAT(read(good + bad + good), ElementsAre(kept, kept)) << bad;
    const std::string log = testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr();
    EXPECT_THAT(log, HasSubstr("beginning: lines 2")) << bad;
    EXPECT_THAT(error_of([&] { read(bad); }), HasSubstr("1 pairs are not used, for their conversations part at a turn "
                                                        "that is no answer, or one is the other's beginning: lines 1"))
        << bad;
  }
  // As lists of turns too.
  EXPECT_THAT(error_of([&] { read(R"({"chosen": )" + both + R"(, "rejected": )" + asked + "}"); }),
              HasSubstr("1 pairs are not used"));
  EXPECT_THAT(lines_error(R"({"chosen": "a", "rejected": "b"})"), HasSubstr("should be two transcripts"));
}

TEST_F(Lines, OtherFieldsAreKeptAsTheyAreWritten) {
  EXPECT_THAT(read(R"({"answer" : 123456789012345678901234567890, "prompt":"p", "d": [0.10, { "z": -0 , "e":1E5}],)"
                   R"( "s": "a, \"b\" } \u00e9", "answer": 0.1000000000000000000000001, "t": true })"),
              ElementsAre(R"(prompt|p|{"answer":0.1000000000000000000000001,"d":[0.10,{"z":-0,"e":1E5}],)"
                          R"("s":"a, \"b\" } \u00e9","t":true})"));
  EXPECT_THAT(lines_error(R"({"prompt": "p", "answer": 1e400})"),
              AllOf(HasSubstr("lines.jsonl:2: "), HasSubstr("'1e400'")));
}

}  // namespace
}  // namespace dsengine
