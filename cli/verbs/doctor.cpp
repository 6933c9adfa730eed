// msa doctor: what this machine can run, and what to do about what it cannot.
#include <memory>

#include "cli/machine/diagnosis.h"
#include "cli/parts/arguments.h"
#include "cli/parts/output.h"
#include "cli/verbs/verbs.h"

namespace msa::cli {
namespace {

struct DoctorArguments {
  std::string model;
  bool json = false;
};

int doctor(const DoctorArguments& arguments) {
  const Diagnosis diagnosis = diagnose(arguments.model);
  print(arguments.json ? diagnosis_json(diagnosis).dump(2, ' ', false,
                                                        nlohmann::json::error_handler_t::replace) +
                             "\n"
                       : diagnosis_text(diagnosis));
  return diagnosis.ready() ? kSuccess : kNotReady;
}

}  // namespace

void add_doctor(CLI::App& app, Action& chosen) {
  CLI::App* verb =
      app.add_subcommand("doctor", "What can run here, and what to do about what cannot");
  const auto arguments = std::make_shared<DoctorArguments>();
  add_model(*verb, arguments->model);
  verb->add_flag("--json", arguments->json, "The same as JSON");
  verb->footer("Exit status 1 when the demo cannot run.\n\nExample:\n  msa doctor");
  verb->callback([arguments, &chosen] { chosen = [arguments] { return doctor(*arguments); }; });
}

}  // namespace msa::cli
