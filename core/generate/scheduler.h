// Continuous batching: answers that end leave at once and waiting prompts enter. A prompt is read once for all its
// samples.
//
//   Scheduler scheduler(model, {.slots = 64});
//   const auto id = scheduler.submit({.prompt = ids, .samples = 4, .eos = {2}});
//   while (!scheduler.idle())
//     for (const Event& e : scheduler.step()) …          // a token of an answer; the last one says how that ended
//   auto answers = generate(scheduler, requests);        // or all of them at once
//
// What a request answers depends on the weights, its prompt and its draws alone, not on the slots or its neighbours;
// who enters when depends on lengths and steps alone, never on time. There is memory for keys and values of as many
// answers as there are slots, each as long as the longest may become; it stays when all has been
// answered, until release(). One thread.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "device/arrival.h"
#include "generate/decoder.h"
#include "generate/request.h"

namespace dsengine {

using RequestId = uint64_t;

struct Event {
  RequestId request;
  int64_t sample;  // of the request
  int32_t token;
  float logp;
  std::optional<Finish> finish;  // of the answer's last token
};

class Scheduler {
 public:
  struct Limits {
    int64_t slots = 64;             // answers at once
    int64_t prefill_tokens = 8192;  // prompt tokens entered in one forward; a longer prompt enters in pieces
  };
  Scheduler(const Model& model, Limits limits) : decoder_(model) { set_limits(limits); }
  Scheduler(const Model& model, Limits limits, bool record) : decoder_(model, record) { set_limits(limits); }
  // From the next step on. Both are at least 1.
  void set_limits(Limits limits);

  // UserError where the model cannot take it.
  RequestId submit(GenerationRequest request);
  // Its answers end without a further event. Of one that has ended, or is not known: nothing.
  void cancel(RequestId id);
  bool idle() const { return waiting_.empty() && active_.empty(); }
  int64_t in_flight() const { return int64_t(active_.size()); }  // answers
  bool all_read() const { return waiting_.empty(); }             // every prompt, and all its answers have begun
  // Each answer in flight gets a token; then prompts enter while there are slots, and get their first. Where steps are
  // recorded, and no filter wants the host, the events are those of the step before, which are read once this one is
  // queued: an answer that has ended is found a step late, and what was drawn for it meanwhile is dropped. Where it
  // throws, all that was submitted is cancelled.
  std::vector<Event> step();

  // Hands back the memory for keys and values; the next step takes it again. Does nothing where answers are in flight.
  void release();

  const Decoder& decoder() const { return decoder_; }

 private:
  struct Job {  // a request, and its prompt once that has been read
    RequestId id;
    GenerationRequest request;
    int64_t next_sample = 0;
    std::optional<Sequence> prefix;  // held until the last sample has begun
    at::Tensor logits;               // [1, V], behind the prompt
    int64_t tokens() const { return int64_t(request.prompt.size()) + request.max_new_tokens; }
    int64_t left() const { return request.samples - next_sample; }
  };
  struct Answer {
    std::shared_ptr<Job> job;
    int64_t sample;
    Sequence sequence;
    std::vector<int32_t> tokens{};  // that were read
    std::optional<StopMatcher> stops{};
    int64_t drawn = 0;  // tokens, those that are not read yet too
    bool over = false;  // ended or cancelled: what is still to be read of it counts for nothing

    bool all_drawn() const { return drawn >= job->request.max_new_tokens; }
  };
  using Answers = std::vector<std::shared_ptr<Answer>>;
  // A token of each answer, on its way to the host.
  struct Draws {
    Answers answers;
    at::Tensor tokens;  // [B] int64, on the device
    Arrival tokens_here, logp_here;
  };
  struct Told {
    std::vector<int64_t> tokens;
    std::vector<float> logp;
  };

  bool looks_ahead() const;
  void enter(std::vector<Event>& events);
  void reserve(const std::vector<std::shared_ptr<Job>>& unread);
  void read_prompts(const std::vector<std::shared_ptr<Job>>& jobs);
  void decode(std::vector<Event>& events);
  // Draws the next token of each answer, and reads it unless that is for later.
  void draw(Answers answers, const at::Tensor& logits, std::vector<Event>& events);
  // In place of what was drawn for answers that filter their logits.
  void filter(const Answers& answers, const at::Tensor& logits, const at::Tensor& told_at,
              const std::vector<double>& draws, Told& told) const;
  static int64_t sampled(const Answer& answer, const at::Tensor& logits_V, double draw);
  static Told told_of(Draws& draws);  // waits for them
  void read(std::vector<Draws>& draws, std::vector<Event>& events);
  void tell(const Answers& answers, const Told& told, std::vector<Event>& events);
  void forget_over();

  Decoder decoder_;
  Limits limits_;
  RequestId next_id_ = 0;
  std::deque<std::shared_ptr<Job>> waiting_;  // the first may have begun
  Answers active_;
  std::vector<Draws> unread_;  // of the last step
};

// Submits all and waits for all: the answers of requests, samples adjacent. The scheduler is idle: nobody else has
// asked it. on_event may be empty; where it throws, what is in flight is cancelled.
std::vector<Generation> generate(Scheduler& scheduler, const std::vector<GenerationRequest>& requests,
                                 const std::function<void(size_t answer, const Event&)>& on_event = {});

}  // namespace dsengine
