"""Tests that `make test-all` runs and a push does not, each with the test of every push that guards the same statement.

A name is a file below tests/, with a test, with one of its cases in brackets. What stands here is slow for what it
adds: another process, another launcher, another case of what its twin shows. `make faults` shows that the tests of
every push see what was seen before.
"""

_RECIPES = "e2e/test_every_recipe.py"
_LOCK = "e2e/test_lock.py"
_LOST = "e2e/test_lost_peer.py"
_KINDS = "e2e/test_outside_kinds.py"
_TASKS = "e2e/test_every_task.py"
_OWN = "e2e/test_own_configuration.py"
_PAGES = "docs/test_reference_pages.py"
_WHEEL = "e2e/test_wheel.py"
_SURVIVES = "contract/test_recipes.py::test_state_survives_save_and_load"
_AWAY = "contract/test_second_device.py::test_a_federation_ends_with_the_bits_of_the_cpu"
_ENDS = "unit/test_exit_codes.py::test_every_end_has_its_code_and_its_line"

NIGHTLY = {
    "unit/test_federation_benchmark.py::test_it_runs_and_both_sides_do_the_same_work": (
        "unit/test_federation_benchmark.py::test_every_row_has_its_tokens_and_its_labels"
    ),
    "e2e/test_wandb.py::test_killed_twice_every_logger_holds_every_round_once": "unit/lab/callbacks/test_wandb_run.py",
    f"{_OWN}::test_a_cell_of_an_own_sweep_runs_with_its_own_files": "unit/config/test_own_sweeps.py",
    f"{_OWN}::test_a_run_s_own_configuration_gives_the_same_bits": "unit/config/test_load_from.py",
    f"{_LOCK}::test_a_job_that_is_not_put_back_says_so": "unit/process/test_slurm.py",
    f"{_LOCK}::test_a_job_that_cannot_finish_a_round_is_not_put_back": _ENDS,
    f"{_LOCK}::test_a_signal_in_an_evaluation_cuts_it_short": "unit/round/test_evaluation.py",
    f"{_LOCK}::test_diverged_and_done_are_told": "contract/test_failures.py",
    f"{_LOCK}::test_out_of_memory_is_one_line_with_a_remedy": _ENDS,
    f"{_LOST}::test_the_second_interrupt_is_one_line_on_each": "unit/process/test_interrupt.py",
    f"{_LOST}::test_a_silent_process_is_not_waited_for_for_ever": "unit/process/test_communication_errors.py",
    f"{_LOST}::test_one_that_never_comes_is_not_waited_for_as_long_as_a_collective": (
        "unit/process/test_communication_errors.py"
    ),
    f"{_LOST}::test_the_limit_of_a_start_is_not_that_of_a_round": "unit/process/test_communication_errors.py",
    "e2e/test_full_disk.py::test_every_writer_of_a_run_tells_it_in_one_line": "unit/process/test_storage.py",
    f"{_KINDS}::test_options_of_every_kind_change_something": "unit/outside/test_kinds_of_parts.py",
    f"{_KINDS}::test_an_installed_distribution_is_found_by_its_entry_point": "unit/outside/test_plugin_modules.py",
    f"{_KINDS}::test_a_method_of_one_s_own_in_one_file": "contract/test_toy_method.py",
    f"{_KINDS}::test_a_run_goes_on_with_the_code_it_began_with": "unit/outside/test_plugin_record.py",
    f"{_WHEEL}::test_it_is_the_wheel_that_runs": f"{_WHEEL}::test_everything_is_in_it_and_nothing_else",
    f"{_WHEEL}::test_it_looks_around": f"{_WHEEL}::test_everything_is_in_it_and_nothing_else",
    f"{_WHEEL}::test_the_doctor_finds_a_wheel": "unit/machine/test_doctor.py",
    f"{_WHEEL}::test_it_runs_the_demo_where_nothing_of_it_can_be_written": (
        f"{_WHEEL}::test_everything_is_in_it_and_nothing_else"
    ),
    "e2e/test_sweep_command.py::test_the_status_of_500_cells_is_there_in_seconds": "unit/lab/sweeps/test_tables.py",
    "e2e/test_two_runs.py::test_the_tasks_of_one_job_meet_at_its_port": "unit/process/test_slurm.py",
    f"{_TASKS}::test_validation_parts_choose_alike_on_any_number_of_processes": "contract/test_choosing_rounds.py",
    f"{_TASKS}::test_the_clients_own_test_parts": "unit/round/test_evaluation.py",
    f"{_TASKS}::test_every_task_runs_and_processes_do_not_change_a_bit[digits-private_head]": (
        "contract/test_classifiers.py"
    ),
    f"{_TASKS}::test_every_task_runs_and_processes_do_not_change_a_bit[digits-checkpointing]": (
        "contract/test_every_option.py"
    ),
    "e2e/test_kept_examples.py::test_a_run_with_more_rounds_keeps_what_the_longer_one_keeps": (
        "e2e/test_kept_examples.py::test_the_rows_add_up"
    ),
    "e2e/test_kept_examples.py::test_rows_of_clients_and_of_validation_add_up[local_only]": (
        "e2e/test_kept_examples.py::test_the_rows_add_up"
    ),
    "e2e/test_outside_parts.py::test_processes_do_not_change_a_bit[random_dropout]": (
        "e2e/test_outside_parts.py::test_processes_do_not_change_a_bit[moment_average]"
    ),
    f"{_RECIPES}::test_processes_do_not_change_a_bit[local_only-2]": f"{_RECIPES}::test_processes_do_not_change_a_bit",
    f"{_RECIPES}::test_killed_at_any_moment_it_goes_on_to_the_same_bits[rolora-fedavgm]": _SURVIVES,
    f"{_RECIPES}::test_killed_at_any_moment_it_goes_on_to_the_same_bits[fedsvd]": _SURVIVES,
    f"{_RECIPES}::test_killed_at_any_moment_it_goes_on_to_the_same_bits[fedftg-keep]": _SURVIVES,
    f"{_RECIPES}::test_killed_at_any_moment_it_goes_on_to_the_same_bits[flora-bfloat16]": _SURVIVES,
    f"{_AWAY}[centralized]": f"{_AWAY}[fedit]",
    f"{_AWAY}[ffa_lora]": f"{_AWAY}[fedsvd]",
    f"{_AWAY}[full]": f"{_AWAY}[fedftg]",
    f"{_AWAY}[hetlora]": f"{_AWAY}[flexlora]",
    "unit/adapters/test_peft_import.py": "e2e/test_startup.py::test_a_run_takes_no_bitsandbytes_and_nobody_else_speaks",
    f"{_PAGES}::test_a_record_has_no_key_that_the_page_lacks": (
        f"{_PAGES}::test_every_key_that_the_code_names_is_described"
    ),
    f"{_PAGES}::test_a_run_leaves_no_file_that_the_page_lacks": "unit/store/test_layout.py",
    "slurm/test_federation.py::test_two_nodes_put_back_by_slurm_and_killed": "slurm/test_mechanics.py",
    "slurm/test_mechanics.py::test_the_time_limit_is_announced": (
        f"{_LOCK}::test_a_time_limit_puts_the_job_back_and_it_goes_on"
    ),
    "e2e/test_results_commands.py::test_chat_answers_lines_and_prompts_alike": (
        "unit/exported/test_answers_of_results.py"
    ),
    "e2e/test_compare.py::test_a_score_of_a_plugin_is_known_and_a_dry_run_refused": "unit/test_compare_choice.py",
    "e2e/test_dashboard.py::test_no_width_overflows": (
        "e2e/test_dashboard.py::test_every_control_works_and_the_lines_are_the_means"
    ),
    "e2e/test_two_runs.py::test_jobs_whose_ids_end_alike_do_not_meet": "unit/process/test_slurm.py",
    "unit/machine/test_doctor.py::test_here_it_finds_no_problem": "unit/machine/test_doctor.py",
    f"{_RECIPES}::test_killed_at_any_moment_it_goes_on_to_the_same_bits[fedit-scaffold]": _SURVIVES,
    "e2e/test_commands.py::test_real_text_and_a_foreign_backbone": (
        "e2e/test_commands.py::test_dry_run_tells_sizes_and_writes_nothing"
    ),
    "unit/test_api_process.py::test_two_runs_in_a_process_are_those_of_two_processes": (
        "unit/test_api_process.py::test_the_process_is_as_before_and_its_settings_change_no_bit"
    ),
    "parity/test_going_on.py::test_a_run_of_an_exported_adapter_begins_where_the_run_before_ended[hetlora]": (
        "parity/test_going_on.py::test_a_run_of_an_exported_adapter_begins_where_the_run_before_ended"
    ),
    "parity/test_going_on.py::test_a_run_of_an_exported_adapter_begins_where_the_run_before_ended[rolora]": (
        "parity/test_going_on.py::test_a_run_of_an_exported_adapter_begins_where_the_run_before_ended"
    ),
    "slurm/test_federation.py::test_cells_that_share_a_job_and_its_time_limit": "slurm/test_mechanics.py",
    "unit/test_evaluation_benchmark.py": "unit/tasks/test_greedy.py",
}


def is_nightly(name: str) -> bool:
    """Tell whether a test, by its name below tests/, is in the table: by its file, its function or its case."""
    function = name.partition("[")[0]
    return bool({name, function, function.partition("::")[0]} & NIGHTLY.keys())
