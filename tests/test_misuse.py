"""Commands used wrongly: one sentence that says how to mend it, and the file system as it was."""

import contextlib
import io

import misuse_world
import pytest
from failing_disk import contents

import export.cli
import latency.cli
import mfagan.data_cli
import mfagan.evaluate_cli
import mfagan.train_cli
import mfagan.upscale_cli
import nas.cli
import nas.demo
from mfagan import shipped

MAINS = {
    "train": mfagan.train_cli.main,
    "search": nas.cli.main,
    "export": export.cli.main,
    "upscale": mfagan.upscale_cli.main,
    "evaluate": mfagan.evaluate_cli.main,
    "latency": latency.cli.main,
    "data": mfagan.data_cli.main,
    "demo": nas.demo.main,
}
TRAIN = "train --data photos --out out --recipe smoke "
SEARCH = (
    "search --supernet supernet.safetensors --data photos --target snapdragon-865/gpu "
    "--input 64x64 --trials 5 "
)
EVALUATE = "evaluate --truth photos "
UPSCALE = "upscale photos/0.png out/a.png --model "
PREDICT = "latency predict "
GRAMMAR = "is not an architecture; the grammar is"

CASES = [
    # mfagan-train: flags
    ("train", "required: --out"),
    ("train --data photos", "required: --out"),
    ("train --out out", "--data is needed"),
    ("train --data photos --uot out", "unknown argument '--uot'; did you mean '--out'"),
    ("latency profile model.onnx --otu=out/m.jsonl", "did you mean '--out'"),
    (TRAIN + "--no-such-flag", "unknown argument '--no-such-flag'"),
    (TRAIN + "--pixel-step 3", "did you mean '--pixel-steps'"),
    (TRAIN + "--bacth 3", "did you mean '--batch'"),
    (TRAIN + "extra", "unknown argument 'extra'"),
    ("train --data photos --out out --recipe dmeo", "did you mean 'demo'"),
    (TRAIN + "--batch 0", "batch must be from 1"),
    (TRAIN + "--batch x", "--batch: .*'x'"),
    (TRAIN + "--batch 1e9", "--batch: .*'1e9'"),
    (TRAIN + "--batch 4097", "to 4096, got 4097"),
    (TRAIN + "--scale 5", "is not one of 2, 3, 4"),
    (TRAIN + "--patch 4", "patch must be from 8"),
    (TRAIN + "--patch 512", "lower --patch"),
    (TRAIN + "--pixel-lr nan", "must be a finite number"),
    (TRAIN + "--pixel-lr inf", "must be a finite number"),
    (TRAIN + "--pixel-lr -1", "--pixel-lr must be at least 0"),
    (TRAIN + "--gamma 1", "gamma must be from 0 to 0.99"),
    (TRAIN + "--ema 2", "ema must be from 0 to 1"),
    (TRAIN + "--lr-milestones 100,200", "to 1 \\(shares of a stage.s steps, e.g. 0.5,0.75\\)"),
    (TRAIN + "--widths 8,x", "--widths: .*8,x"),
    (TRAIN + "--widths 0", "must be .*1 .*256, got 0"),
    (TRAIN + "--widths ,", "--widths: .*','"),
    (TRAIN + "--branches 3", "branches must be 0, 1 or 2"),
    (TRAIN + "--generator-optimizer wsma", "did you mean 'wsam'"),
    (TRAIN + "--precision fp16", "fp16: its gradient scaling cannot serve the two passes"),
    (TRAIN + "--precision fp8", "is not one of auto, fp32, bf16"),
    (TRAIN + "--generator-optimizer saf", "random crops never come again; add --fixed-crops"),
    (TRAIN + "--pixel-optimizer saf", "--pixel-optimizer saf .*add --fixed-crops"),
    (TRAIN + "--generator-optimizer saf --fixed-crops", "SubGenerators take turns"),
    (TRAIN + "--fixed-crops 1 --batch 2", "--fixed-crops must be at least the batch of 2, got 1"),
    (TRAIN + "--accumulate 3 --batch 2", "--accumulate must be at most the batch of 2, got 3"),
    (TRAIN + "--sharpness-every 0", "--sharpness-every must be at least 1"),
    (TRAIN + "--rho -0.1", "rho must be from 0"),
    (TRAIN + "--perturb all", "is not one of task, full"),
    (TRAIN + "--threads 0", "at least 1 is needed"),
    (TRAIN + "--threads 100000", "at most [0-9]+ threads"),
    (TRAIN + "--device tpu", "is not one of auto, cpu, cuda"),
    (TRAIN + "--seed -1", "seed must be at least 0"),
    # mfagan-train: networks
    (TRAIN + "--architecture mfa_x4_w8", GRAMMAR),
    (TRAIN + "--architecture mfa_x4_w99999999_c1_s0", GRAMMAR),
    (TRAIN + "--architecture mfa_x2_w8_c1_s0", "has scale 2, but --scale is 4"),
    (TRAIN + "--architecture rrdb_x4_w8_b1_g4", "must be an mfa architecture"),
    (TRAIN + "--teacher missing.safetensors", "'missing.safetensors' .*not .*"),
    (TRAIN + "--teacher model.safetensors", "holds a generator, not a teacher"),
    (TRAIN + "--teacher truncated.safetensors", "'truncated.safetensors' is not"),
    (TRAIN + "--teacher rrdb_x2_w8_b1_g4", GRAMMAR),
    (TRAIN + "--teacher mfa_x4_w8_c1_s0", "must be an rrdb architecture"),
    (TRAIN + "--teacher weights.pth", "'weights.pth' is not a weights file.*torch.save has not"),
    (TRAIN + "--teacher-steps 0", "--teacher-steps must be above 0"),
    (TRAIN + "--discriminator patchgan_n9", "the grammar is patchgan"),
    (TRAIN + "--discriminator patchgan_n5_f4 --patch 8", "raise --patch or take fewer layers"),
    # mfagan-train: photographs
    ("train --out out --data missing", "'missing' is not a folder"),
    ("train --out out --data photos/0.png", "'photos/0.png' is not a folder"),
    ("train --out out --data nothing", "'nothing' holds no image"),
    ("train --out out --data one", "at least two are needed"),
    ("train --out out --recipe smoke --data small", "too small"),
    ("train --out out --recipe smoke --data broken", "'broken/1.png'"),
    ("train --out out --recipe smoke --data flat", "is flat"),
    (TRAIN + "--validation missing", "'missing' is not a folder"),
    (TRAIN + "--validation nothing", "'nothing' holds no image"),
    # mfagan-train: run folders
    ("train --data photos --recipe smoke --out photos/run", "lies inside the photographs"),
    ("train --data photos --recipe smoke --out empty.png", "'empty.png' is a file"),
    ("train --data photos --recipe smoke --out strangers", "not empty and holds no run"),
    ("train --data photos --recipe smoke --out run", "another configuration .*data.patch: 8 -> 16"),
    ("train --data photos --recipe smoke --out newer", "newer mfagan .*format 99.*; update"),
    ("train --data photos --recipe smoke --out unreadable", "'unreadable.* not TOML"),
    ("train --resume --out out", "'out'.* no run|'out' holds no"),
    ("train --resume --out strangers", "'strangers' holds no"),
    ("train --resume --out run --force", "--force"),
    ("train --resume --out run --batch 3", "data.batch: 1 -> 3"),
    ("train --resume --out newer", "newer mfagan"),
    ("train --data photos --out strangers --dry-run", "'strangers' .*holds no run"),
    ("train --data broken --out out --dry-run", "'broken/1.png'"),
    # mfagan-train: configuration files
    ("train --data photos --out out --config missing.toml", "'missing.toml' does not exist"),
    ("train --data photos --out out --config photos", "'photos' is a folder"),
    ("train --data photos --out out --config photos/0.png", "is not TOML"),
    ("train --data photos --out out --config unknown_key.toml", "did you mean 'pixel_steps'"),
    ("train --data photos --out out --config unknown_table.toml", "did you mean 'schedule'"),
    ("train --data photos --out out --config wrong_table.toml", r"it belongs to \[optimizer\]"),
    ("train --data photos --out out --config wrong_type.toml", "must be .*, got 'many'"),
    ("train --data photos --out out --config not_toml.toml", "is not TOML: .*line 1"),
    ("train --data photos --out out --config boolean.toml", "must be .*, got True"),
    # mfagan-search
    ("search", "required: --data, --input, --out"),
    (SEARCH + "--out out", "has no budget; give --budget-ms"),
    (SEARCH + "--budget-ms 4 --out out --no-such", "unknown argument '--no-such'"),
    (SEARCH + "--budget-ms 4 --out out --trails 5", "did you mean '--trials'"),
    (SEARCH + "--budget-ms 0 --out out", "above 0 is needed"),
    (SEARCH + "--budget-ms -4 --out out", "above 0 is needed"),
    (SEARCH + "--budget-ms nan --out out", "above 0 is needed"),
    (SEARCH + "--budget-ms 4 --out out --trials 2", "--trials must be at least 5"),
    (SEARCH + "--budget-ms 4 --out out --trials 0", "at least 1 is needed"),
    (SEARCH + "--budget-ms 4 --out out --sampler tep", "did you mean 'tpe'"),
    (SEARCH + "--budget-ms 4 --out photos/search", "lies inside the photographs"),
    (SEARCH + "--budget-ms 4 --out empty.png", "'empty.png' is a file, not a folder"),
    (SEARCH + "--budget-ms 4 --out strangers", "not empty and holds no search"),
    (SEARCH + "--budget-ms 5 --out searched", "budget_ms: 4.0 -> 5.0"),
    (SEARCH + "--budget-ms 4 --out out --storage nonsense", "give journal:PATH or the URL"),
    (SEARCH + "--budget-ms 4 --out out --storage sqlite:///study.db", "SQLite loses trials"),
    (
        SEARCH + "--budget-ms 4 --out out --storage postgresql://127.0.0.1:none/x",
        "cannot be opened",
    ),
    (SEARCH + "--budget-ms 4 --out out --finetune-steps -1", "at least 0 is needed"),
    (SEARCH + "--budget-ms 4 --out out --finetune-steps 1.5", "at least 0 is needed"),
    (SEARCH + "--budget-ms 4 --out out --finetune-steps 2", "smaller than a crop"),
    (SEARCH + "--budget-ms 4 --out out --supernet missing", "'missing' does not exist"),
    (SEARCH + "--budget-ms 4 --out out --supernet strangers", "wants a run of mfagan-train"),
    (SEARCH + "--budget-ms 4 --out out --supernet model.safetensors", "not a supernet"),
    (SEARCH + "--budget-ms 4 --out out --supernet truncated.safetensors", "is not a weights file"),
    (SEARCH + "--budget-ms 4 --out out --supernet weights.pth", "weights.pth"),
    (SEARCH + "--budget-ms 4 --out out --supernet supernte", "did you mean 'supernet'"),
    (SEARCH + "--budget-ms 4 --out out --supernet large", "holds a generator .* not a supernet"),
    (SEARCH + "--budget-ms 4 --out out --supernet middle", "'.*middle.safetensors' is damaged"),
    ("search " + SEARCH.split(maxsplit=3)[3] + "--budget-ms 4 --out strangers", "no search"),
    (SEARCH + "--budget-ms 4 --out out --data missing", "'missing' does not exist"),
    (SEARCH + "--budget-ms 4 --out out --data nothing", "'nothing' holds no image"),
    (SEARCH + "--budget-ms 4 --out out --data one", "at least two are needed"),
    (SEARCH + "--budget-ms 4 --out out --validation missing", "'missing' does not exist"),
    (SEARCH + "--budget-ms 4 --out out --target snapdragon-856/gpu", "did you mean 'snapdragon-8"),
    (SEARCH + "--budget-ms 4 --out out --target snapdragon", "the grammar is soc/unit"),
    (SEARCH + "--budget-ms 4 --out out --target future.json", "has schema 99"),
    (SEARCH + "--budget-ms 4 --out out --input 64", "HEIGHTxWIDTH is needed"),
    (SEARCH + "--budget-ms 4 --out out --input 0x64", "must be 1 to 16384"),
    (SEARCH + "--budget-ms 4 --out out --input 64x64x3", "HEIGHTxWIDTH is needed"),
    (SEARCH + "--budget-ms 4 --out out --input 99999x64", "must be 1 to 16384"),
    (SEARCH + "--budget-ms 4 --out strangers --dry-run", "not empty and holds no search"),
    # mfagan-export
    ("export", "required: WEIGHTS, --out"),
    ("export model.safetensors", "required: --out"),
    ("export missing.safetensors --out out", "'missing.safetensors'.* not"),
    ("export lareg --out out", "'lareg' does not exist and is no .*did you mean 'large'"),
    ("export middle --out out", "'.*middle.safetensors' is damaged: .*; install mfagan anew"),
    ("export middle-gan --out out", "'.*middle-gan.safetensors' is missing; install mfagan"),
    ("export small --out out", "'small' is .* a folder; it hides the shipped network"),
    ("export photos --out out", "'photos' is .*not a file|'photos' is a folder"),
    ("export photos/0.png --out out", "'photos/0.png' is not a weights file"),
    ("export truncated.safetensors --out out", "'truncated.safetensors' is not a weights file"),
    ("export empty.safetensors --out out", "'empty.safetensors' is not a weights file"),
    ("export foreign.safetensors --out out", "'foreign.safetensors' is not a weights file"),
    ("export future.safetensors --out out", "format"),
    ("export weights.pth --out out", "'weights.pth' is not a weights file.*torch.save has not"),
    ("export model.onnx --out out", "'model.onnx' is exported already"),
    ("export discriminator.safetensors --out out", "holds a discriminator"),
    ("export model.safetensors --out out --precision int4", "did you mean 'int8'"),
    ("export model.safetensors --out out --precision fp32,in8", "did you mean 'int8'"),
    ("export model.safetensors --out out --precision ,", "is not a precision"),
    ("export model.safetensors --out out --precision fp32,fp32", "fp32.* twice"),
    ("export model.safetensors --out out --precision int8", "give --calibration"),
    ("export model.safetensors --out out --calibration missing", "'missing' is not a folder"),
    ("export model.safetensors --out out --calibration nothing", "'nothing' holds no image"),
    ("export model.safetensors --out out --calibration broken", "'broken/1.png'"),
    ("export model.safetensors --out out --evaluation missing", "'missing' is not a folder"),
    ("export model.safetensors --out out --evaluation small", "at least 64x64 are needed"),
    ("export model.safetensors --out out --input 12", "HEIGHTxWIDTH is needed"),
    ("export model.safetensors --out out --input 0x5", "must be 1 to 16384"),
    ("export model.safetensors --out out --opset 9", "opset must be 18"),
    ("export model.safetensors --out out --opset 99", "opset must be 18"),
    ("export model.safetensors --out out --opset x", "--opset: .*'x'"),
    ("export model.safetensors --out out --architecture mfa_x4_w8_c1_s0", "holds mfa_x4_w4_c1_s0"),
    ("export supernet.safetensors --out out --architecture mfa_x4_w5_c1_s0", "not in the space"),
    ("export supernet.safetensors --out out --architecture nonsense", GRAMMAR),
    ("export model.safetensors --out photos/0.png", "photos/0.png' is a file"),
    ("export model.safetensors --out out --precison fp32", "did you mean '--precision'"),
    ("export model.safetensors --out out --threads -1", "at least 1 is needed"),
    ("export truncated.safetensors --out out --dry-run", "is not a weights file"),
    # mfagan-upscale
    ("upscale", "required: IN, OUT"),
    ("upscale photos/0.png", "required: OUT"),
    ("upscale photos/0.png out/a.png", "'large-gan' does not exist and is no shipped network"),
    ("upscale missing.png out/a.png --model model.safetensors", "'missing.png' does not exist"),
    ("upscale photos/*.jpg out --model model.safetensors", r"'photos/\*.jpg'"),
    ("upscale photos/0.png out/a.gif --model model.safetensors", "must end in one of .png"),
    ("upscale photos/0.png out/a --model model.safetensors", "must end in one of .png"),
    ("upscale photos/0.png photos/0.png --model model.safetensors", "would replace"),
    ("upscale photos photos --model model.safetensors", "would replace"),
    ("upscale photos photos/large --model model.safetensors", "'photos/large' .* inside 'photos'"),
    ("upscale photos one/0.png --model model.safetensors", "'one/0.png'.* must be"),
    ("upscale nothing out --model model.safetensors", "'nothing' holds no image"),
    ("upscale photos/0.png photos/1.png out/a.png --model model.safetensors", "'out/a.png'"),
    ("upscale empty.png out/a.png --model model.safetensors", "'empty.png' .*empty"),
    ("upscale truncated.png out/a.png --model model.safetensors", "'truncated.png' .*truncated"),
    ("upscale text.png out/a.png --model model.safetensors", "'text.png'"),
    ("upscale bomb.png out/a.png --model model.safetensors", "'bomb.png' .*2147483647"),
    ("upscale folder.png out/a.png --model model.safetensors", "'folder.png' holds no image"),
    ("upscale model.onnx out/a.png --model model.safetensors", "'model.onnx'"),
    ("upscale photos/0.png empty.png/a.png --model model.safetensors", "empty.png' is a file"),
    (UPSCALE + "missing.onnx", "the model 'missing.onnx'"),
    (UPSCALE + "lareg", "'lareg' .* no shipped network .*large, .*did you mean 'large'"),
    (UPSCALE + "Large", "did you mean 'large'"),
    (UPSCALE + "middle", "'.*middle.safetensors' is damaged: its SHA-256 .*; install mfagan anew"),
    (UPSCALE + "middle-gan", "'.*middle-gan.safetensors' is missing; install mfagan anew"),
    (UPSCALE + "small", "'small' is .* a folder; it hides the shipped network of that name"),
    (UPSCALE + "large --architecture mfa_x4_w8_c1_s0", "holds mfa_x4_w4_c1_s0"),
    (UPSCALE + "photos/0.png", "must end in .onnx, .safetensors or .pth"),
    (UPSCALE + "photos", "the model 'photos'"),
    (UPSCALE + "truncated.onnx", "'truncated.onnx' is not an ONNX file"),
    (UPSCALE + "empty.onnx", "'empty.onnx' is not an ONNX file"),
    (UPSCALE + "foreign.onnx", "'foreign.onnx' is not an ONNX file of mfagan"),
    (UPSCALE + "external.onnx", "'external.onnx' keeps its weights in another file"),
    (UPSCALE + "truncated.safetensors", "'truncated.safetensors' is not a weights file"),
    (UPSCALE + "foreign.safetensors", "'foreign.safetensors' is not a weights file"),
    (UPSCALE + "future.safetensors", "format"),
    (UPSCALE + "discriminator.safetensors", "holds a discriminator"),
    (UPSCALE + "weights.pth", "'weights.pth' is not a weights file.*torch.save has not written"),
    (UPSCALE + "model.onnx --architecture mfa_x4_w4_c1_s0", "holds one architecture"),
    (UPSCALE + "model.safetensors --architecture mfa_x4_w8_c1_s0", "holds mfa_x4_w4_c1_s0"),
    (UPSCALE + "model.safetensors --architecture x", GRAMMAR),
    (UPSCALE + "supernet.safetensors --architecture mfa_x4_w5_c1_s0", "not in the space"),
    (UPSCALE + "model.safetensors --tile 0", "at least 1 is needed"),
    (UPSCALE + "model.safetensors --tile big", "at least 1 is needed"),
    (UPSCALE + "model.safetensors --tiel 4", "did you mean '--tile'"),
    # mfagan-evaluate
    ("evaluate model.safetensors", "required: --truth"),
    ("evaluate bicubic --truth missing", "'missing' is not a folder"),
    ("evaluate bicubic --truth nothing", "'nothing' holds no image"),
    ("evaluate bicubic --truth broken", "'broken/1.png' .*truncated"),
    (EVALUATE, "'large-gan' .*does not exist"),
    (EVALUATE + "lareg", "did you mean 'large'"),
    (EVALUATE + "missing.safetensors", "the model 'missing.safetensors'"),
    (EVALUATE + "truncated.safetensors", "'truncated.safetensors' is not a weights file"),
    (EVALUATE + "discriminator.safetensors", "holds a discriminator"),
    (EVALUATE + "bicubic bicubic", "'bicubic' is compared with itself"),
    (EVALUATE + "bicubic one model.safetensors", "at most two results .* got 3"),
    (EVALUATE + "one", "2 of 3 photographs .* 'photos/1.png' has no result 'one/1.*' or"),
    (EVALUATE + "nothing", "'nothing' holds no image"),
    (EVALUATE + "bicubic --lr one", "2 of 3 photographs .* 'photos/1.png' has no LR image"),
    (EVALUATE + "bicubic --lr photos", "'photos/0.png' is 96x96, but 1/4 of"),
    (EVALUATE + "bicubic --measures psnr,nique", "did you mean 'niqe'"),
    (EVALUATE + "bicubic --measures lpips_alex", "lpips_alex needs --lpips-weights"),
    (EVALUATE + "bicubic --measures lpips_vgg --lpips-weights one", "lpips_vgg needs vgg16-.*pth"),
    (EVALUATE + "bicubic --architecture mfa_x4_w4_c1_s0", "no model is given"),
    (
        EVALUATE + "bicubic --crop 48",
        "3 of 3 photographs .*'photos/0.png' has 96x96 .*107x107 are needed",
    ),
    (EVALUATE + "bicubic --out photos/out", "--out 'photos/out' lies inside 'photos'"),
    (EVALUATE + "photos ./photos", "'photos' is compared with itself"),
    (EVALUATE + "bicubic --crop -1", "at least 0 is needed"),
    (EVALUATE + "bicubic --scale 5", "2, 3, 4"),
    (EVALUATE + "bicubic --luma Y", "rgb.*matlab"),
    (EVALUATE + "model.safetensors --scale 2", "'model.safetensors' enlarges 4x, not 2x"),
    # mfagan-latency
    ("latency", "required: COMMAND"),
    ("latency predcit x", "did you mean 'predict'"),
    ("latency devices extra", "unknown argument 'extra'"),
    ("latency predict", "required: model"),
    (PREDICT + "nonsense --target snapdragon-865/gpu", GRAMMAR),
    (PREDICT + "mfa_x4_w8_c1 --target snapdragon-865/gpu", GRAMMAR),
    (PREDICT + "mfa_x4_w8_c1_s0", "give --target"),
    (PREDICT + "mfa_x4_w8_c1_s0 --target snapdragon-865/npu", "no profile is shipped"),
    (PREDICT + "mfa_x4_w8_c1_s0 --target snapdragon/865", "the grammar is soc/unit"),
    (PREDICT + "mfa_x4_w8_c1_s0 --target snapdragon-865/gpu:int4", "precision must be"),
    (PREDICT + "mfa_x4_w8_c1_s0 --target snapdragon-865/gpu --input 12", "HEIGHTxWIDTH is needed"),
    (PREDICT + "mfa_x4_w8_c1_s0 --target snapdragon-865/gpu --inptu 1x1", "did you mean '--input'"),
    (PREDICT + "missing.onnx --target snapdragon-865/gpu", "no ONNX file 'missing.onnx'"),
    (PREDICT + "empty.onnx --target snapdragon-865/gpu", "'empty.onnx' is not an ONNX file"),
    (PREDICT + "truncated.onnx --target snapdragon-865/gpu", "'truncated.onnx' is not an ONNX"),
    (PREDICT + "external.onnx --target snapdragon-865/gpu", "in another file"),
    (PREDICT + "photos/0.png --target snapdragon-865/gpu", "'photos/0.png' is not an ONNX file"),
    (PREDICT + "mfa_x4_w8_c1_s0 --profile missing.json", "no profile 'missing.json'"),
    (PREDICT + "mfa_x4_w8_c1_s0 --profile not_toml.toml", "it is not JSON"),
    (PREDICT + "mfa_x4_w8_c1_s0 --profile future.json", "it has schema 99"),
    ("latency fit missing.jsonl --target host/cpu --out out/p.json", "does not exist"),
    ("latency fit broken.jsonl --target host/cpu --out out/p.json", "'broken.jsonl' line 1"),
    ("latency fit measured.jsonl --target pixel-3/cpu --out out/p.json", "there are host/cpu"),
    ("latency fit measured.jsonl --target host/cpu", "required: --out"),
    ("latency fit measured.jsonl --out out/p.json", "required: --target"),
    ("latency fit --target host/cpu --out out/p.json", "give measurement files"),
    ("latency profile model.onnx", "required: --out"),
    ("latency profile missing.onnx --out out/m.jsonl", "no ONNX file 'missing.onnx'"),
    ("latency profile empty.onnx --out out/m.jsonl", "'empty.onnx' is not an ONNX file"),
    ("latency profile model.onnx --out out/m.csv", "must end in .jsonl"),
    ("latency profile model.onnx --out out/m.jsonl --runs 0", "at least 1 is needed"),
    ("latency profile model.onnx --out out/m.jsonl --device abd", "must be host, adb or adb:"),
    ("latency profile model.onnx --out empty.png/m.jsonl", "empty.png' is a file"),
    ("latency profile model.onnx --out broken.jsonl", "'broken.jsonl' line 1"),
    ("latency collect --target host/cpu", "required: --minutes"),
    ("latency collect --target host/cpu --minutes 1 --out broken.jsonl", "'broken.jsonl' line 1"),
    ("latency collect --target host/npu --minutes 1", "this machine is the target 'host/cpu'"),
    # mfagan-data
    ("data", "required: COMMAND"),
    ("data chekc photos", "did you mean 'check'"),
    ("data check", "required: DIR"),
    ("data --json check photos", "'--json' belongs after the command's name"),
    ("data check missing", "'missing' is not a folder"),
    ("data check photos/0.png", "'photos/0.png' is not a folder"),
    ("data check nothing", "'nothing' holds no image"),
    ("data check photos --against", "--against: expected at least one"),
    ("data check photos --against missing", "'missing' is not a folder"),
    ("data check photos --against photos", "all images of 'photos' are in --against"),
    ("data check photos --against broken", "'broken/1.png'"),
    ("data check photos --agianst one", "did you mean '--against'"),
    ("data check photos --patch 0", "at least 1 is needed"),
    ("data check photos --scale 5", "is not one of 2, 3, 4"),
    ("data download", "give the NAME of a data set, or --list"),
    ("data download set5", "--out is needed"),
    ("data download set5 --uot out", "did you mean '--out'"),
    ("data download set6 --out out", "did you mean 'set5'"),
    ("data download imagenet --out out", "not a data set that is known .*; download it yourself"),
    ("data download set5 --out out --mirror file:///etc/passwd", "starts with https://"),
    ("data download set5 --out out --mirror a.zip", "'a.zip' is not an address"),
    ("data download set5 set14 --out out --mirror http://a/b", "one data set, got 2 names"),
    ("data download set5 --out out --keep-archives", "did you mean '--keep-archive'"),
    ("data download set5 --out empty.png", "empty.png' is a file"),
    ("data download --list --out out", "leave --out out"),
    # python -m nas.demo
    ("demo --recipe dmeo", "did you mean 'demo'"),
    ("demo --out empty.png", "empty.png' is a file"),
    ("demo --seed x", "at least 0 is needed"),
    ("demo --threads 0", "at least 1 is needed"),
    ("demo extra", "unknown argument 'extra'"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder that the commands are run in, and what it holds."""
    root = tmp_path_factory.mktemp("world")
    with contextlib.redirect_stdout(io.StringIO()):
        misuse_world.make(root)
    return root, contents(root)


def test_every_case_is_another_one():
    assert len({line for line, _ in CASES}) == len(CASES) >= 120
    assert {line.split()[0] for line, _ in CASES} == set(MAINS)


@pytest.mark.parametrize(("line", "sentence"), CASES, ids=[line for line, _ in CASES])
def test_misuse(world, monkeypatch, capfd, line, sentence):
    import re

    root, before = world
    monkeypatch.chdir(root)
    monkeypatch.setattr(shipped, "FOLDER", root / "shipped")
    name, *words = line.split()
    status = MAINS[name](words)
    shown = capfd.readouterr()
    program = "python -m nas.demo" if name == "demo" else f"mfagan-{name}"
    lines = [text for text in shown.err.splitlines() if text.startswith(program)]
    said = "\n".join(lines)
    assert status == 2, shown
    assert len(lines) == 1, shown.err
    assert re.search(sentence, said), said
    assert not shown.out
    # Nothing else but progress: no traceback, no word of a library's C code.
    others = [text for text in shown.err.splitlines() if text not in lines]
    assert all(re.match(r"\w+: \d+/\d+, ", text) for text in others), shown.err
    assert contents(root) == before
