"""Faults that were easy to make, each with the tests of every push that must see it: `make faults` plants one after the
other in a copy of the tree and runs them.

Add one whenever a fault was found late, or a test was made quicker.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One line of the package written wrongly.

    what: the fault in words. file: below fedlit/. right: text that stands there once. wrong: what it becomes.
    tests: files below tests/ of which at least one must fail.
    """

    what: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "the mean forgets the clients' weights",
        "round/cohort.py",
        "self._total.add(encode(tensors, self._like, self.plan.weights[client_id]))",
        "self._total.add(encode(tensors, self._like, 1.0 / len(self.plan.weights)))",
        ("unit/round/test_cohort.py",),
    ),
    Fault(
        "weights of lost clients stay in the mean",
        "round/cohort.py",
        "if len(self.client_ids) == len(self.plan.arriving):",
        "if True:",
        ("unit/round/test_cohort.py",),
    ),
    Fault(
        "the fixed-point sum cuts instead of rounding",
        "round/fixed_point.py",
        ".round_().long()",
        ".long()",
        ("unit/round/test_fixed_point.py",),
    ),
    Fault(
        "the processes' sums are not added up",
        "round/fixed_point.py",
        "communication.sum_in_place(self._buffer)",
        "pass",
        ("e2e/test_same_bits.py", "e2e/test_api_torchrun.py", "distributed", "contract/test_failures.py"),
    ),
    Fault(
        "FedEx's residual lacks the scaling",
        "round/rules/fedex_lora.py",
        "mean_residual(a, b, mean[layer.b], weights, layer.scaling())",
        "mean_residual(a, b, mean[layer.b], weights, 1.0)",
        ("parity/test_fedex.py",),
    ),
    Fault(
        "FlexLoRA's B keeps the scaling",
        "round/rules/flexlora.py",
        "(best.left / layer.scaling())",
        "best.left",
        ("parity/test_flexlora.py",),
    ),
    Fault(
        "FedSVD refactors one round late",
        "round/rules/fedsvd.py",
        "(server.round_idx + 1) % self.svd_every",
        "server.round_idx % self.svd_every",
        ("parity/test_factor_rules.py",),
    ),
    Fault(
        "rsLoRA scales as LoRA",
        "algebra/lora_layer.py",
        "rank**0.5 if self.use_rslora else rank",
        "rank",
        ("parity/test_lora_peft.py", "parity/test_peft_adapters.py", "unit/algebra"),
    ),
    Fault(
        "FedProx pulls twice as hard",
        "client/corrections.py",
        "alpha=self._mu)",
        "alpha=2 * self._mu)",
        ("parity/test_scaffold_fedprox.py",),
    ),
    Fault(
        "SCAFFOLD corrects in the wrong direction",
        "client/corrections.py",
        "offset = c.to(parameter.device) - c_i.to(parameter.device)",
        "offset = c_i.to(parameter.device) - c.to(parameter.device)",
        ("parity/test_scaffold_fedprox.py",),
    ),
    Fault(
        "FedAdam starts at tau instead of its square",
        "round/server_optimizers.py",
        "torch.full_like(delta, options.tau**2)",
        "torch.full_like(delta, options.tau)",
        ("unit/round/test_server_optimizers.py",),
    ),
    Fault(
        "accumulated batches count alike whatever their targets",
        "client/steps.py",
        "loss * (num_targets[batch_idx] / sum(num_targets))",
        "loss / len(parts)",
        ("unit/client/trainers",),
    ),
    Fault(
        "gradients are never clipped",
        "client/steps.py",
        "if self.local.max_grad_norm is not None:",
        "if False:",
        ("unit/client/trainers",),
    ),
    Fault(
        "two clients see their rows in one order",
        "client/row_order.py",
        'numpy_generator(seed, f"order/{epoch}", client_id=client_id)',
        'numpy_generator(seed, f"order/{epoch}")',
        ("unit/client/test_row_order.py",),
    ),
    Fault(
        "a named stream leaves torch's generator where it ended",
        "seeding.py",
        "with torch.random.fork_rng(devices=devices):",
        "if devices is not None:",
        ("unit/test_seeding.py",),
    ),
    Fault(
        "Poisson sampling invites one client a round",
        "round/plan.py",
        "share = cohort_size / num_clients",
        "share = 1 / num_clients",
        ("unit/round/test_plan.py",),
    ),
    Fault(
        "labels are dealt without their share of the rows",
        "partition/dealing.py",
        "_log_dirichlet(alpha * prior, num_clients, rng)",
        "_log_dirichlet(alpha + 0 * prior, num_clients, rng)",
        ("unit/partition/test_dealing.py",),
    ),
    Fault(
        "the loss is one token late",
        "data/collation.py",
        "range(row * width + start - 1, row * width + stop - 1)",
        "range(row * width + start, row * width + stop)",
        ("parity/test_loss.py",),
    ),
    Fault(
        "ROUGE-L is recall",
        "metrics/text.py",
        "/ (len(prediction) + len(reference))",
        "/ (2 * len(reference))",
        ("parity/test_text_metrics.py",),
    ),
    Fault(
        "a lock that was taken over still counts as held",
        "store/lock.py",
        "found.holder.token == self.holder.token",
        "bool(self.holder.token)",
        ("unit/store/test_run_lock.py",),
    ),
    Fault(
        "a damaged checkpoint is taken for whole",
        "store/checkpoint.py",
        "problem = find_problem(path)",
        "problem = None",
        ("unit/store/test_checkpoint.py",),
    ),
    Fault(
        "a run that goes on forgets the optimizers of its clients",
        "client/trainers/serial.py",
        'if self.local.optimizer_state == "keep"',
        "if False",
        ("unit/client/trainers", "contract"),
    ),
    Fault(
        "what was chosen on the test set has no mark",
        "scores.py",
        'return "validation" if key.startswith("validation/") else "test"',
        'return "validation"',
        ("unit/test_scores.py", "unit/lab/report", "unit/test_compare_choice.py"),
    ),
    Fault(
        "a token may be sent to the hub",
        "exported/push.py",
        "if _TOKEN.search(text) or any(secret in text for secret in secrets):",
        "if False:",
        ("e2e/test_push.py",),
    ),
    Fault(
        "out of memory ends with the code of a mistake",
        "commands/endings.py",
        "OUT_OF_MEMORY_EXIT_CODE = 4",
        "OUT_OF_MEMORY_EXIT_CODE = 2",
        ("unit/test_exit_codes.py",),
    ),
    Fault(
        "a client's file lacks its optimizer",
        "store/writing.py",
        '"optimizer": state.optimizer}',
        '"optimizer": None}',
        ("unit/store/test_checkpoint.py", "contract/test_recipes.py"),
    ),
    Fault(
        "the first clients make every cohort",
        "round/plan.py",
        "for client in generator.choice(num_clients, size=cohort_size, replace=False)",
        "for client in range(cohort_size)",
        ("unit/round/test_plan.py",),
    ),
    Fault(
        "a client does not get its own tensors back",
        "client/host.py",
        "copy_into(self.private(), private)",
        "assert private is not None",
        ("contract/test_recipes.py",),
    ),
    Fault(
        "a run of other settings is taken for a cell's",
        "lab/sweeps/cells.py",
        "if entry.others and (",
        "if not entry.others and (",
        ("unit/lab/sweeps/test_placing.py", "unit/lab/sweeps/test_any_edit.py"),
    ),
    Fault(
        "a finished cell that is given more rounds counts as done",
        "lab/sweeps/cells.py",
        'if status.state != "done" or entry.num_rounds is None:',
        'if status.state != "running" or entry.num_rounds is None:',
        ("unit/lab/sweeps/test_placing.py", "unit/lab/sweeps/test_any_edit.py"),
    ),
    Fault(
        "each local step reads its loss from the device",
        "client/steps.py",
        "losses.append(loss)",
        "losses.append(loss + 0 * loss.item())",
        ("contract/test_second_device.py",),
    ),
    Fault(
        "labels stay on the CPU",
        "data/collation.py",
        "label_ids=self.label_ids.to(device, non_blocking=True)",
        "label_ids=self.label_ids",
        ("contract/test_second_device.py",),
    ),
    Fault(
        "transformers looks in each step whether a mask is needed",
        "models/masks.py",
        "padding_mask is None and look(padding_mask, *others, **named)",
        "look(padding_mask, *others, **named)",
        ("contract/test_second_device_parts.py",),
    ),
    Fault(
        "clients of one pass draw dropout from the first one's stream",
        "client/together/weights.py",
        "with self._states.of(slot):",
        "with self._states.of(0 * slot):",
        ("contract/test_clients_per_batch.py",),
    ),
    Fault(
        "rows that leave a batch are not counted off their clients",
        "tasks/greedy.py",
        "tell_rows_left(kept, num_live)",
        "tell_rows_left(None, num_live)",
        ("unit/tasks/test_greedy.py",),
    ),
    Fault(
        "clients of one pass are clipped by the norm of all",
        "client/together/members.py",
        "factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)",
        "factors = (max_norm / (norms.norm() + 0 * norms)).clamp(max=1.0)",
        ("contract/test_clients_per_batch.py",),
    ),
    Fault(
        "GPT-2's positions are one row for all",
        "client/per_example/recording.py",
        "if x.shape[0] == 1 < self._rows.num_rows and not in_line:",
        "if False:",
        ("unit/client/per_example/test_kinds_of_layers.py",),
    ),
    Fault(
        "a tied weight's norm lacks the product of its two uses",
        "client/per_example/pieces.py",
        "total = total + 2 * _inner(one, other)",
        "pass",
        ("unit/client/per_example/test_kinds_of_layers.py",),
    ),
    Fault(
        "all steps of a client's round have one noise",
        "client/per_example/noise.py",
        'f"example noise/{step}"',
        '"example noise/0"',
        ("unit/client/trainers/test_example.py",),
    ),
    Fault(
        "a private step's gradient is a sum, not over the rows that it expects",
        "client/per_example/steps.py",
        "total / work.num_expected",
        "total / 1",
        ("unit/client/trainers/test_example.py",),
    ),
    Fault(
        "the rate of a row is one over the number of batches",
        "client/row_order.py",
        "return min(1.0, batch_size / num_rows)",
        "return 1 / -(-num_rows // batch_size)",
        ("unit/client/test_poisson_order.py",),
    ),
    Fault(
        "a parameter that the loss does not use gets no noise",
        "client/per_example/steps.py",
        "if name in noise:",
        "if name in noise and total is not None:",
        ("unit/client/trainers/test_example.py",),
    ),
)
