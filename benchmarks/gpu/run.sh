#!/usr/bin/env bash
# Checks and measurements on a machine with one GPU, each part with a time limit of its own; see README.md.
#
#   OUT=results bash benchmarks/gpu/run.sh               all parts except the experiment
#   OUT=results bash benchmarks/gpu/run.sh steps         some of them
#   bash benchmarks/gpu/run.sh --cpu                     a rehearsal with tiny sizes on the CPU
#
# Results are written as they come: $OUT/checks.jsonl, steps.jsonl, train.jsonl, outcomes.tar and run.log; all other
# files go to a temporary folder, because a lent machine brings back only eight. A part that fails or runs out of time
# does not stop the next one. TOTAL_S limits the whole call. The exit code is 1 if any check has failed.
set -uo pipefail
cd "$(dirname "$0")/../.."

device=cuda
tiny=()
patience=1 # factor of all time limits
threads=3  # of each of the five checks that run at the same time: with more, they wait for each other
parts="environment doctor checks train steps"
if [ "${1:-}" = --cpu ]; then
    device=cpu
    tiny=(--tiny)
    patience=6 # a busy machine with two cores; on an idle one the rehearsal takes a minute
    threads=1
    export OMP_NUM_THREADS=1
    TOTAL_S="${TOTAL_S:-1200}"
    export CUDA_VISIBLE_DEVICES=""
    parts="checks train steps experiment"
    shift
fi
wanted=" ${*:-$parts} "

export OUT="${OUT:-build/gpu-results}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false NO_COLOR=1 COLUMNS=160
TOTAL_S="${TOTAL_S:-570}"
python="${PYTHON:-python3}"
[ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ] && python=.venv/bin/python
mkdir -p "$OUT"
rm -f "$OUT"/*.jsonl "$OUT/run.log" "$OUT/outcomes.tar"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

if [ "$device" = cuda ] && [ -d build/gpu/wheels ]; then
    site="$scratch/site"
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" build/gpu/wheels/*.whl
    export PYTHONPATH="$site:$PWD"
else
    export PYTHONPATH="$PWD"
fi

# part NAME SECONDS COMMAND...: runs a command with a time limit; its output goes to run.log, with the part's name.
part() {
    local name="$1" limit=$(($2 * patience)) left=$((TOTAL_S - SECONDS)) start="$SECONDS" code
    shift 2
    [ "$limit" -gt "$left" ] && limit="$left"
    if [ "$limit" -lt 5 ]; then
        echo "NOT RUN $name: no time is left"
        return
    fi
    timeout --kill-after=5 "$limit" "$@" 2>&1 | sed -u "s/^/[$name] /" >>"$OUT/run.log"
    code="${PIPESTATUS[0]}"
    echo "$name: $((SECONDS - start)) s, exit code $code$([ "$code" = 124 ] && echo " (time limit)")"
    if [ "$code" != 0 ]; then
        echo "{\"part\": \"$name\", \"name\": \"exit code\", \"value\": $code.0, \"bound\": 0.0, \"note\": \"see run.log\"}" \
            >>"$OUT/checks.jsonl"
        grep -F "[$name]" "$OUT/run.log" | tail -n 5
    fi
}

check() { # MODULE SECONDS: one module of this folder
    part "$1" "$2" env OMP_NUM_THREADS="$threads" "$python" -m "benchmarks.gpu.$1" --device "$device" --out "$OUT" "${tiny[@]}"
}

is_wanted() { [[ "$wanted" == *" $1 "* ]]; }

if is_wanted environment && [ "$device" = cuda ]; then
    part environment 60 bash -c "
        nvidia-smi || true; df -h /dev/shm .; nproc; free -g; g++ --version || echo 'no g++'
        '$python' -m torch.utils.collect_env; '$python' -m pip list"
fi

is_wanted doctor && [ "$device" = cuda ] && part doctor 75 "$python" -m uniemox doctor --gpus 1 --out "$scratch/runs"

# Right or wrong does not depend on what runs beside it, so these share the machine.
if is_wanted checks; then
    check numerics 110 &
    check costs 110 &
    # Without an address, torchrun asks for that of the machine's name, which a machine without a network can't resolve.
    part distributed 80 env OMP_NUM_THREADS="$threads" "$python" -m torch.distributed.run --standalone \
        --local-addr 127.0.0.1 --nproc-per-node 1 -m benchmarks.gpu.distributed --device "$device" --out "$OUT" "${tiny[@]}" &
    check commands 150 &
    check compiling 170 &
    wait
fi

# Speed, alone on the machine.
if is_wanted train; then
    if [ "$device" = cpu ]; then
        train=(--preset demo --data synthetic:40 --steps 1 --batch-size 4)
    elif [ -d build/gpu/shards ]; then
        train=(--preset paper --data shards:build/gpu/shards --steps 20 --batch-size 128)
    else
        train=(--preset paper --data synthetic:400 --steps 20 --batch-size 128)
    fi
    part train 170 bash -o pipefail -c "'$python' -m benchmarks.train ${train[*]} | tee '$OUT/train.jsonl'"
fi
is_wanted steps && part steps 540 "$python" -m benchmarks.gpu.steps --device "$device" --out "$OUT" "${tiny[@]}"

if is_wanted experiment; then
    continued=("$python" -m experiments.continued --out "$scratch/continued" --archive "$OUT/outcomes.tar")
    if [ "$device" = cpu ]; then
        part experiment 60 "${continued[@]}" --tiny
    elif [ -f build/gpu/pack.npz ]; then
        part experiment 540 "${continued[@]}" --gpu --pack build/gpu/pack.npz
    else
        echo "experiment: NOT RUN, there is no build/gpu/pack.npz; experiments/continued/pack.py writes it"
    fi
fi

"$python" -m benchmarks.gpu.reporting "$OUT"
