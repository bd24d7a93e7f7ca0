#!/usr/bin/env bash
# Runs every line of the tables of docs/seeds.md with a small model and a few rows, and prints for
# each whether the outputs it names are there and what it left.
#
#   cargo build --release && bash scripts/seeds.sh
#
# A line runs as it is written, in a folder of its own with files under the names that the lines
# use; its model becomes the small base, and steps, lengths and test questions are cut.
#
#   KILN_RUN=PATH       the program [target/release/run]
#   KILN_MODEL=DIR      another small model than data/models/tiny
#   KILN_SQUAD=FILE     SQuAD v1.1 JSON in place of the sample
#   KILN_SST2=DIR       train.tsv and dev.tsv of SST-2 in place of the sample
#   KILN_WORK=DIR       where the runs go and stay [a temporary folder]
#   KILN_ONLY=REGEX     only lines that match; those that need an earlier one's adapter then fail
#
# Exit status 1 where a line failed.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
run=${KILN_RUN:-$root/target/release/run}
model=${KILN_MODEL:-$root/data/models/tiny}
[ -x "$run" ] || { echo "$run: no such program: cargo build --release, or set KILN_RUN" >&2; exit 2; }
run=$(realpath "$run") model=$(realpath "$model")
if [ -n "${KILN_WORK:-}" ]; then
  mkdir -p "$KILN_WORK" && work=$(realpath "$KILN_WORK") || exit 2
else
  work=$(mktemp -d "${TMPDIR:-/tmp}/kiln-seeds.XXXXXX") || exit 2
  trap 'rm -rf "$work"' EXIT
fi

# The files that the lines name.
put() { mkdir -p "$(dirname "$2")" && cat "$1" >"$2"; }
few() { mkdir -p "$(dirname "$2")" && head -n 101 "$1" >"$2"; }
data=$root/data squad=${KILN_SQUAD:-$root/data/sample_squad.json}
for part in mcq saq; do
  for set in train test; do few "$data/${set}_dataset_$part.csv" "$work/data/${set}_dataset_$part.csv"; done
done
put "$squad" "$work/data/squad/train-v1.1.json"
put "$squad" "$work/data/squad/dev-v1.1.json"
for set in train dev; do
  if [ -n "${KILN_SST2:-}" ]; then sst2=$KILN_SST2/$set.tsv; else sst2=$data/sample_sst2.tsv; fi
  few "$sst2" "$work/data/sst2/$set.tsv"
done
put "$data/sample_abstractive.jsonl" "$work/train.jsonl"
put "$data/sample_abstractive.jsonl" "$work/test.jsonl"
put "$data/sample_academic.jsonl" "$work/data/synthetic_qa.jsonl"
cd "$work" || exit 2
{
  head -n 3 data/test_dataset_mcq.csv
  tail -n +2 data/test_dataset_saq.csv | head -n 3 | sed 's/^\(.*\),\([^,]*\)$/\1,,\2/'
} >questions.csv
for i in 1 2 3 4; do
  printf '{"messages": [{"role": "user", "content": "What is %s?"}, {"role": "assistant", "content": "A number."}, {"role": "user", "content": "And then?"}, {"role": "assistant", "content": "The next one."}]}\n' $i
done >talks.jsonl
for i in 1 2 3 4; do
  printf '{"instruction": "Say the number %s.", "output": "It is %s."}\n' $i $i
done >instructions.jsonl
# For models whose own chat template the small base lacks.
cat >chat.jinja <<'JINJA'
{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}
JINJA

# prepare LINE: the words of the command with the small model, in `words`; its run directory, if it
# has one, in `dir`.
prepare() {
  local word kept=()
  read -r -a words <<<"$1"
  dir=outputs/seeds/$(printf %02d "$count")
  for word in "${words[@]:1}"; do
    case $word in
      model=*) ;;
      # An encoder of random numbers, which is there.
      evaluate.sas_model=*) kept+=("evaluate.sas_model=$root/tests/fixtures/bert") ;;
      # The lines on memory change these; here they are small already.
      training.max_seq_length=* | training.batch_size=* | training.gradient_accumulation_steps=*) ;;
      *) kept+=("$word") ;;
    esac
  done
  words=("${kept[@]}")
  local small=(model=tiny "model.path=$model" training.max_seq_length=256)
  case "$1" in
    *qwen3* | *task=chat*) small+=(prompt.chat_template_file=chat.jinja) ;;
  esac
  case "${words[0]}" in
    train | infer | eval | compare)
      small+=(training.max_steps=2 task.max_test_examples=4 inference.max_new_tokens=8)
      case " $1 " in
        *" -m "*) small+=("hydra.sweep.dir=$dir") ;;
        *) small+=("hydra.run.dir=$dir") ;;
      esac
      ;;
    plan | preview) ;;
    chat) small+=(inference.max_new_tokens=8 prompt.chat_template=true prompt.chat_template_file=chat.jinja) ;;
    merge) ;;
    # Of past runs, and of the machine: no config.
    runs)
      dir=''
      case "${words[1]}" in
        show) words=(runs show "$last") ;;
        diff) words=(runs diff "$before" "$last") ;;
      esac
      return
      ;;
    report)
      words=(report "$last") dir=$last
      return
      ;;
    *)
      dir=''
      return
      ;;
  esac
  # What the line says itself stays last, and wins.
  words=("${words[0]}" "${small[@]}" "${words[@]:1}")
}

# expected LINE: a path a line that has to be there.
expected() {
  case "${words[0]}" in
    train)
      case " $1 " in
        *" --cfg "*) ;;
        *" -m "*) echo "$dir/sweep.csv" ;;
        *)
          printf '%s\n' "$dir"/{metrics.csv,summary.json,config.resolved.yaml,run.log}
          case "$1" in *method=full*) echo "$dir/model" ;; *) echo "$dir/adapter/adapter_model.safetensors" ;; esac
          ;;
      esac
      ;;
    infer) printf '%s\n' "$dir"/{predictions.csv,summary.json} ;;
    eval) case " $1 " in *" -m "*) echo "$dir/sweep.csv" ;; *) echo "$dir/summary.json" ;; esac ;;
    compare) printf '%s\n' "$dir"/{evaluation.csv,evaluation_for_marking.csv,marking_key.csv,comparison.svg} ;;
    merge) echo zephyr-academic/model.safetensors ;;
    report) echo "$dir/report.html" ;;
  esac
}

# holds LINE: a file and a text that has to be in it, a pair a line.
holds() {
  local task
  [ -n "$dir" ] || return
  case "${words[0]} $1 " in
    *" --cfg "*) ;;
    *" -m "*) printf "$dir/sweep.csv %s\n" finished metrics.tuned peak_memory_bytes tokens_per_s trainable_parameters ;;
    train*)
      printf "$dir/summary.json %s\n" '"finished"' trainable_percent peak_memory_bytes tokens_per_s
      task=$(sed -n 's/^ *"task": "\(.*\)",$/\1/p' "$dir/summary.json")
      case "$1" in *method=full*) ;; *) echo "outputs/adapters/adapter_$task/adapter_config.json peft_type" ;; esac
      ;;
    infer*max_retries*) printf '%s\n' "$dir/predictions.csv attempts" "$dir/summary.json valid" ;;
    infer*) echo "$dir/predictions.csv prediction" ;;
    eval*) printf "$dir/summary.json %s\n" '"base"' '"tuned"' ;;
    compare*) echo "$dir/evaluation.csv question,base,tuned,reference" ;;
  esac
}

count=0 failed=0 last='' before=''
printf '| line | result | what it left |\n|---|---|---|\n'
while IFS= read -r line; do
  case "$line" in
    # Where `run runs` and the like are only named.
    'run train' | 'run infer' | 'run eval' | 'run plan') continue ;;
    # Another model writes or judges: the tests run these, with a small server in its place.
    *https://HOST/* | *synth.path=* | *judge.path=*) continue ;;
  esac
  [[ -z ${KILN_ONLY:-} || $line =~ $KILN_ONLY ]] || continue
  count=$((count + 1))
  prepare "$line"
  log=$work/log-$(printf %02d "$count")
  if printf 'What is it?\n/exit\n' | "$run" "${words[@]}" >"$log" 2>"$log.err"; then
    result=ok
  else
    result="failed: $(grep -m 1 . "$log.err" | cut -c 1-160)"
  fi
  while IFS= read -r path; do
    [ -z "$path" ] || [ -e "$path" ] || [[ $result != ok ]] || result="failed: no $path"
  done < <(expected "$line")
  while read -r path text; do
    [[ -z $path || $result != ok ]] || grep -qF -- "$text" "$path" || result="failed: no $text in $path"
  done < <(holds "$line")
  [ -s "$log" ] || [ -s "$log.err" ] || result="failed: it said nothing"
  if [ -n "$dir" ] && [ -d "$dir" ]; then
    left=$(cd "$dir" && find . -maxdepth 1 -mindepth 1 ! -name '.*' ! -name '*.log' -printf '%f\n' | sort | paste -sd ' ')
    case "${words[0]}" in train) before=$last last=$dir ;; esac
  else
    left="$(wc -l <"$log") lines of text"
  fi
  case "${words[0]}" in merge) left=$(ls zephyr-academic 2>/dev/null | paste -sd ' ') ;; esac
  [[ $result == ok* ]] || failed=$((failed + 1))
  printf '| `%s` | %s | %s |\n' "$line" "$result" "$left"
done < <(grep '^|' "$root/docs/seeds.md" | grep -o '`run [^`]*`' | tr -d '`')
printf '\n%s lines, %s failed\n' "$count" "$failed"
[ "$failed" = 0 ]
