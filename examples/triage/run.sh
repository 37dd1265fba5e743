#!/usr/bin/env bash
# From a table of Excel to a published model and its report: the commands of README.md, one after the other.
#   examples/triage/run.sh [WORK_FOLDER]
# BASE_MODEL=tiny is faster and shows only that the software runs. LLM=smollm2 writes the messages with a small real LLM.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-examples-out/triage}
llm=${LLM:-simulator} base=${BASE_MODEL:-minilm} steps=${STEPS:-60} n=${N:-300} port=${PORT:-8090}
mkdir -p "$work"
answers() { python -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2> "$work/wait.log"; }
if answers; then echo "port $port is in use: PORT=8091 $0 takes another"; exit 1; fi

echo "--- one misspelt label is corrected, as you would in Excel"
LC_ALL=C sed 's/;urgnet/;urgent/' "$here/messages.csv" > "$work/messages.csv"

echo "--- 1. the table becomes gold"
hf-synth gold "$work/messages.csv" --text-column Message --label-column Priority --group-column "Patient ID" \
    --name triage --skip-empty --access open \
    --meaning "urgent=a nurse or doctor must call back today" \
    --meaning "routine=a clinical question that can wait for some days" \
    --meaning "admin=no clinical question: appointments, bills, forms, records" \
    --out "$work/gold"

echo "--- 2. new messages, corrected labels, a model of each mixture, scores and a report"
hf-synth run "$work/gold" --llm "$llm" --n "$n" --method agree --base-model "$base" \
    --set learning_rate=2e-4 --set max_steps="$steps" --out "$work/run"
model=$(echo "$work"/run/models/gold_*_plus_corrected)

echo "--- 3. a Hub of your own"
hf-synth hub serve --root "$work/hub" --port "$port" > "$work/hub.log" 2>&1 &
hub=$!
trap 'kill $hub' EXIT
until answers; do
    kill -0 $hub 2> "$work/wait.log" || { cat "$work/hub.log"; exit 1; }
    sleep 0.5
done
export HF_ENDPOINT=http://127.0.0.1:$port HF_HUB_DISABLE_XET=1 HF_TOKEN="$(cat "$work/hub/token")"
export HF_HUB_DISABLE_PROGRESS_BARS=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1

echo "--- 4. and 5. what may leave is published"
hf-synth publish "$work/gold" "$work/run/corrected" --repo-id local/triage-messages --push --yes --out "$work/export/data"
hf-synth publish "$work/gold" "$model" --repo-id local/triage-model --push --yes --out "$work/export/model"

echo "--- 6. anybody pulls it, with datasets and transformers alone"
HF_HOME="$work/pulled" python "$here/../use_published_model.py" local/triage-messages local/triage-model \
    "My chest feels tight and I am sweating." "Which form do you need from my insurer?"
echo "report: $work/run/report.html   cards: $work/export"
