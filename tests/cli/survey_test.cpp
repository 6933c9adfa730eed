// What `msa inspect` counts, from selections made by hand; the picture, its letters and its file;
// the file of picks; the findings of `msa doctor`.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "cli/inspect/picks.h"
#include "cli/inspect/report.h"
#include "cli/inspect/sheet.h"
#include "cli/inspect/survey.h"
#include "cli/machine/diagnosis.h"
#include "cli/machine/machine.h"
#include "cli/picture/lettering.h"
#include "cli/picture/png.h"
#include "tests/runner/fixture.h"

namespace msa::cli {
namespace {

using runner::test::TempFolder;

/// One layer of 2 groups, blocks of 4 tokens, K = 2, read in chunks.
class Selections {
 public:
  explicit Selections(int64_t num_tokens) : num_tokens_(num_tokens) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    q_.resize(static_cast<size_t>(num_tokens) * kHeads * kDim);
    k_.resize(static_cast<size_t>(num_blocks()) * kBlock * kGroups * kDim);
    for (float& x : q_) x = normal(random);
    for (float& x : k_) x = normal(random);
    for (int32_t n = 0; n < num_blocks(); ++n) pages_.push_back(n);
    ids_.assign(static_cast<size_t>(kGroups * num_tokens * kTopK), -1);
  }
  int64_t num_blocks() const { return (num_tokens_ + kBlock - 1) / kBlock; }

  /// The list of a row: the local block, and `other` where it is below.
  void choose(int64_t group, int64_t row, int32_t other) {
    const auto local = static_cast<int32_t>(row / kBlock);
    int32_t* list = ids_.data() + (group * num_tokens_ + row) * kTopK;
    list[0] = std::min(other, local);
    list[1] = other < local ? local : -1;
  }

  SurveyOptions options() const {
    SurveyOptions options;
    options.num_tokens = num_tokens_;
    options.block_size = kBlock;
    options.top_k = kTopK;
    options.num_groups = kGroups;
    return options;
  }

  Survey survey(const SurveyOptions& options, int64_t chunk) const {
    Survey survey(context_, options);
    for (int64_t first = 0; first < num_tokens_; first += chunk) {
      const int64_t count = std::min(chunk, num_tokens_ - first);
      runner::SelectionView view;
      view.layer = 5;
      view.first_position = first;
      view.num_tokens = count;
      view.q = {q_.data() + first * kHeads * kDim, DType::kFloat32, {count, kHeads, kDim}};
      view.k = {k_.data(), DType::kFloat32, {num_blocks(), kBlock, kGroups, kDim}};
      view.page_table = {pages_.data(), DType::kInt32, {1, num_blocks()}};
      view.block_ids = {ids_.data() + first * kTopK,
                        DType::kInt32,
                        {kGroups, count, kTopK},
                        {num_tokens_ * kTopK, kTopK, 1}};
      survey.see(view);
    }
    return survey;
  }

  /// Means of the reference backend over all rows of a group.
  std::vector<float> exact_recalls(int64_t group) const {
    ContextOptions reference;
    reference.backend = Backend::kReference;
    const int32_t ends[2] = {0, static_cast<int32_t>(num_tokens_)};
    const int32_t lengths[1] = {static_cast<int32_t>(num_tokens_)};
    std::vector<float> means(4);
    RecallArgs args;
    args.q = {q_.data() + group * (kHeads / kGroups) * kDim,
              DType::kFloat32,
              {num_tokens_, kHeads / kGroups, kDim},
              {kHeads * kDim, kDim, 1}};
    args.k = {k_.data() + group * kDim,
              DType::kFloat32,
              {num_blocks(), kBlock, 1, kDim},
              {kBlock * kGroups * kDim, kGroups * kDim, kDim, 1}};
    args.sequences = {.cu_seqlens_q = {ends, DType::kInt32, {2}},
                      .cu_seqlens_k = {},
                      .page_table = {pages_.data(), DType::kInt32, {1, num_blocks()}},
                      .kv_lens = {lengths, DType::kInt32, {1}}};
    args.block_size = kBlock;
    args.block_ids = {
        ids_.data() + group * num_tokens_ * kTopK, DType::kInt32, {1, num_tokens_, kTopK}};
    args.means = {{&means[0], DType::kFloat32, {1}},
                  {&means[1], DType::kFloat32, {1}},
                  {&means[2], DType::kFloat32, {1}},
                  {&means[3], DType::kFloat32, {1}}};
    recall(Context(reference), args, {});
    return means;
  }

  static constexpr int64_t kBlock = 4;
  static constexpr int64_t kTopK = 2;
  static constexpr int64_t kGroups = 2;
  static constexpr int64_t kHeads = 4;
  static constexpr int64_t kDim = 8;

 private:
  int64_t num_tokens_;
  Context context_;
  std::vector<float> q_, k_;
  std::vector<int32_t> pages_, ids_;
};

/// Group 0 always takes block 0; group 1 the block before the local one.
Selections stripe_and_band(int64_t num_tokens) {
  Selections selections(num_tokens);
  for (int64_t row = 0; row < num_tokens; ++row) {
    selections.choose(0, row, 0);
    selections.choose(1, row, std::max(0, static_cast<int32_t>(row / 4) - 1));
  }
  return selections;
}

TEST(Survey, CountsWhatWasChosen) {
  const Selections selections = stripe_and_band(48);
  for (const int64_t chunk : {48, 16}) {
    const Survey survey = selections.survey(selections.options(), chunk);
    ASSERT_EQ(survey.layers().size(), 1u);
    const std::vector<GroupSurvey>& groups = survey.layers().at(5);
    ASSERT_EQ(survey.num_bins(), 12);
    for (int64_t query = 0; query < 12; ++query) {
      for (int64_t block = 0; block < 12; ++block) {
        const auto at = static_cast<size_t>(query * 12 + block);
        EXPECT_EQ(groups[0].heat[at], block == query || block == 0 ? 4u : 0u);
        EXPECT_EQ(groups[1].heat[at], block == query || block + 1 == query ? 4u : 0u);
      }
    }
    EXPECT_EQ(groups[0].first_block.value(), 1.0);
    EXPECT_EQ(groups[1].first_block.value(), 0.0);
    EXPECT_EQ(groups[0].first_block.count, 40);  // rows with more than two visible blocks
    EXPECT_EQ(groups[0].unions[0].value(), 2.0);
    EXPECT_EQ(groups[0].unions[1].value(), 3.0);
    EXPECT_EQ(groups[1].unions[1].value(), 3.0);
    EXPECT_EQ(groups[0].unions[2].value(), 5.0);
  }
  // A step from one block to the next shares one of three; 39 pairs of neighbours, 9 steps.
  const GroupSurvey group = selections.survey(selections.options(), 48).layers().at(5)[0];
  EXPECT_NEAR(group.jaccard.value(), (30 + 9 / 3.0) / 39, 1e-12);
}

TEST(Survey, RecallsAreThoseOfTheReference) {
  const Selections selections = stripe_and_band(50);
  SurveyOptions options = selections.options();
  options.recall_rows = 50;  // all
  for (const int64_t chunk : {50, 12}) {
    const Survey survey = selections.survey(options, chunk);
    EXPECT_EQ(survey.num_recall_rows(), 42);
    for (int64_t group = 0; group < 2; ++group) {
      const std::vector<float> exact = selections.exact_recalls(group);
      const GroupSurvey& found = survey.layers().at(5)[static_cast<size_t>(group)];
      for (size_t kind = 0; kind < kNumRecalls; ++kind) {
        EXPECT_EQ(found.recalls[kind].count, 42);
        EXPECT_NEAR(found.recalls[kind].value(), static_cast<double>(exact[kind]), 1e-4);
      }
    }
  }
  options.recall_rows = 4;
  const Survey some = selections.survey(options, 7);
  EXPECT_EQ(some.num_recall_rows(), 4);
  EXPECT_EQ(some.layers().at(5)[1].recalls[0].count, 4);
}

TEST(Survey, LongPromptsShareBins) {
  const Selections selections = stripe_and_band(int64_t{4} * 1030);
  const Survey survey = selections.survey(selections.options(), 1024);
  EXPECT_EQ(survey.blocks_per_bin(), 3);
  EXPECT_EQ(survey.num_bins(), 344);
  EXPECT_EQ(survey.queries_in_bin(343), 4);
  const GroupSurvey& group = survey.layers().at(5)[0];
  EXPECT_EQ(group.heat[static_cast<size_t>(344 * 100)], 12u);
  EXPECT_EQ(group.heat[static_cast<size_t>(344 * 100 + 100)], 12u) << "a query counts once a bin";
}

TEST(Survey, SaysWhenNothingWasChosen) {
  const Selections selections = stripe_and_band(8);
  SurveyOptions options = selections.options();
  options.recall_rows = 10;
  const Survey survey = selections.survey(options, 8);
  EXPECT_NE(survey_text(survey).find("No query chose"), std::string::npos);
  EXPECT_TRUE(survey_json(survey).at("mean").at("score_recall").is_null());
  EXPECT_EQ(survey_json(survey).at("groups").size(), 2u);
}

TEST(Sheet, ShowsDiagonalStripeAndFact) {
  const Selections selections = stripe_and_band(48);
  const Survey survey = selections.survey(selections.options(), 48);
  SheetOptions options;
  options.title = "A title";
  options.lines = {"48 tokens"};
  options.layers = {5};
  const Canvas plain = draw_sheet(survey, options);
  options.marked_block = 7;
  const Canvas marked = draw_sheet(survey, options);
  ASSERT_EQ(plain.width(), marked.width());
  // 33 pixels a block: panels of 396 from (132, 186).
  const auto pixel = [](const Canvas& canvas, int group, int query, int block) {
    const Colour colour =
        canvas.at(132 + group * (396 + 34) + block * 33 + 16, 186 + query * 33 + 16);
    return std::array<int, 3>{colour.red, colour.green, colour.blue};
  };
  const std::array<int, 3> paper = {251, 250, 247};
  const std::array<int, 3> dark = pixel(plain, 0, 11, 11);
  EXPECT_LT(dark[0] + dark[1] + dark[2], 250);
  EXPECT_EQ(pixel(plain, 0, 11, 0), dark) << "the first block's stripe";
  EXPECT_EQ(pixel(plain, 1, 11, 10), dark) << "the band beside the diagonal";
  EXPECT_EQ(pixel(plain, 0, 4, 8), paper) << "nothing is visible above the diagonal";
  EXPECT_NE(pixel(plain, 0, 11, 5), dark);
  EXPECT_NE(pixel(plain, 0, 11, 5), paper);
  EXPECT_EQ(pixel(marked, 0, 11, 11), dark);
  EXPECT_GT(pixel(marked, 0, 7, 7)[0], pixel(marked, 0, 7, 7)[2]) << "orange";
}

TEST(Lettering, EveryLetterHasAShapeOfItsOwn) {
  std::vector<std::vector<uint8_t>> shapes;
  std::string letters;
  for (char c = '!'; c <= '~'; ++c) letters += c;
  const TextStyle style = {.height = 18, .colour = {0, 0, 0}};
  const auto drawn = [&style](const std::string& text) {
    Canvas canvas(40, 40, {255, 255, 255});
    draw_text(canvas, 8, 26, text, style);
    return canvas.pixels();
  };
  const std::vector<uint8_t> empty = drawn(" ");
  const std::vector<uint8_t> unknown = drawn("~");
  int known = 0;
  for (const char c : letters) {
    const std::vector<uint8_t> shape = drawn(std::string(1, c));
    EXPECT_NE(shape, empty) << c;
    if (shape == unknown) continue;
    EXPECT_EQ(std::count(shapes.begin(), shapes.end(), shape), 0) << c;
    shapes.push_back(shape);
    ++known;
  }
  EXPECT_EQ(known, 82);
  EXPECT_GT(text_width("mm", style), text_width("ii", style));
  EXPECT_EQ(text_width("", style), 0);
}

TEST(Canvas, CutsWhatLiesOutside) {
  Canvas canvas(10, 10, {255, 255, 255});
  canvas.fill(-5, -5, 8, 8, {0, 0, 0});
  canvas.strokes({{{-20, 5}, {30, 5}}}, 1, {0, 0, 0});
  canvas.triangle({-5, -5}, {30, -5}, {5, 4}, {0, 0, 0});
  EXPECT_EQ(canvas.at(0, 0).red, 0);
  EXPECT_EQ(canvas.at(9, 9).red, 255);
}

TEST(Png, ReadsBackAsItWasDrawn) {
  Canvas canvas(31, 17, {251, 250, 247});
  canvas.fill(3, 4, 5, 6, {10, 20, 30});
  const std::vector<std::byte> bytes = png_bytes(canvas);
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()), 0);
  ASSERT_EQ(image.width, 31u);
  ASSERT_EQ(image.height, 17u);
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(image));
  ASSERT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0);
  EXPECT_EQ(pixels, canvas.pixels());
  EXPECT_EQ(png_bytes(canvas), bytes);
}

Picks two_layers() {
  Picks picks;
  picks.block_size = 4;
  picks.k_len = 13;
  picks.num_groups = 2;
  picks.num_rows = 3;
  picks.top_k = 2;
  picks.layers[0] = {0, 2, 1, 2, 0, 3, 2, -1, 0, 2, 3, -1};
  picks.layers[11] = {1, 2, 1, 2, 1, 3, 1, 2, 1, 2, 1, 3};
  return picks;
}

class PicksFile : public testing::Test {
 protected:
  std::filesystem::path write(const Picks& picks) const {
    const std::vector<std::byte> bytes = picks_bytes(picks);
    folder_.write("p", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    return folder_.path() / "p";
  }
  void expect_refused(const Picks& picks, const std::string& part) const {
    runner::test::expect_error([&] { read_picks(write(picks)); }, {"[picks]", part});
  }
  TempFolder folder_;
};

TEST_F(PicksFile, ReadsBack) {
  const Picks picks = two_layers();
  const Picks again = read_picks(write(picks));
  EXPECT_EQ(again.block_size, 4);
  EXPECT_EQ(again.k_len, 13);
  EXPECT_EQ(again.num_groups, 2);
  EXPECT_EQ(again.num_rows, 3);
  EXPECT_EQ(again.top_k, 2);
  EXPECT_EQ(again.layers, picks.layers);
}

TEST_F(PicksFile, RefusesWhatNoIndexChooses) {
  Picks picks = two_layers();
  picks.layers[0][1] = 3;  // block 3 is not visible at position 10
  expect_refused(picks, "layer.0 has a wrong list at row 0");
  picks.layers[0][1] = 0;
  expect_refused(picks, "ascending");
  picks.layers[0][0] = -1;
  expect_refused(picks, "layer.0 has a wrong list at row 0");
  picks = two_layers();
  picks.k_len = 2;
  expect_refused(picks, "at most k_len = 2 rows");
  picks = two_layers();
  picks.block_size = 0;
  expect_refused(picks, "metadata block_size is wrong");
  picks = two_layers();
  picks.layers.clear();
  expect_refused(picks, "has no layer");
  folder_.write("p", runner::test::safetensors_bytes({{"layer.0", {{1, 1, 1}, {0}}}}));
  runner::test::expect_error([&] { read_picks(folder_.path() / "p"); },
                             {"metadata format is wrong", "allowed \"msa-picks\""});
}

TEST(Doctor, KnowsTheGpusState) {
  const TempFolder folder;
  const std::string root = folder.path().string();
  EXPECT_EQ(gpu_state(root), GpuState::kNone);
  const auto device = folder.path() / "sys/bus/pci/devices/0000:01:00.0";
  std::filesystem::create_directories(device);
  std::ofstream(device / "vendor") << "0x10de\n";
  std::ofstream(device / "class") << "0x020000\n";
  EXPECT_EQ(gpu_state(root), GpuState::kNone) << "a network card";
  std::ofstream(device / "class") << "0x030200\n";
  EXPECT_EQ(gpu_state(root), GpuState::kNoDriver);
  std::filesystem::create_directories(folder.path() / "proc/driver/nvidia");
  std::ofstream(folder.path() / "proc/driver/nvidia/version") << "580\n";
  EXPECT_EQ(gpu_state(root), GpuState::kReady);
}

TEST(Doctor, IsNotReadyWithAProblem) {
  Diagnosis diagnosis;
  diagnosis.findings = {{"a", Level::kGood, "x", ""}, {"b", Level::kNote, "y", "do z"}};
  EXPECT_TRUE(diagnosis.ready());
  EXPECT_NE(diagnosis_text(diagnosis).find("-> do z"), std::string::npos);
  diagnosis.findings.push_back({"c", Level::kProblem, "none", "get one"});
  EXPECT_FALSE(diagnosis.ready());
  EXPECT_EQ(diagnosis_json(diagnosis).at("ready"), false);
  EXPECT_EQ(diagnosis_json(diagnosis).at("findings")[2].at("level"), "PROBLEM");
}

}  // namespace
}  // namespace msa::cli
