"""Convert the artefacts of a notebook into those that score.py reads."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import local_output
from lmsys_ray.errors import UsageError


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Convert pickled vectorizers and boosters into DIR/lightgbm, a torch state dict into DIR/adapter.",
        [
            "--output imported --pickles notebook --trust-pickle",
            "--output imported --state-dict lora.pth --model meta-llama/Meta-Llama-3-8B-Instruct",
            "--output imported --state-dict lora.pth --model /models/llama --set lora.r=8 --set lora.alpha=16",
        ],
        "What --pickles expects: cvec.pkl and ccvec.pkl, fitted vectorizers of scikit-learn (words, characters), "
        "and lgb_models.pkl, a list of LightGBM models of three classes over both. "
        "Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("--output", metavar="DIR", type=local_output, required=True, help="where new directories go")
    parser.add_argument("--pickles", metavar="DIR", type=Path, help="holds cvec.pkl, ccvec.pkl and lgb_models.pkl")
    parser.add_argument("--trust-pickle", action="store_true", help="you trust who made them: reading runs their code")
    parser.add_argument(
        "--state-dict", metavar="FILE", type=Path, help="state dict of a PEFT model, as torch.save wrote"
    )
    parser.add_argument("--model", metavar="BASE", help="its base model: directory, GGUF file, hub id or packaged name")
    parser.add_argument(
        "--set",
        metavar="lora.KEY=value",
        action="append",
        default=[],
        dest="sets",
        help="what differs from r=16, alpha=32, dropout=0.1, target_modules=[o_proj,v_proj]; may be repeated",
    )
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "import_artifacts.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    if not arguments.pickles and not arguments.state_dict:
        raise UsageError("nothing to import; give --pickles DIR, --state-dict FILE, or both")
    if arguments.state_dict and not arguments.model:
        raise UsageError("--state-dict needs --model BASE, the model that its adapter was trained on")
    # Imported once the command is known to be right: these take seconds to load.
    from lmsys_ray.config.command_options import parse_options
    from lmsys_ray.storage.directories import check_free

    lightgbm, adapter = arguments.output / "lightgbm", arguments.output / "adapter"
    for wanted, target in ((arguments.pickles, lightgbm), (arguments.state_dict, adapter)):
        if wanted:
            check_free(target)
    if arguments.pickles:
        from lmsys_ray.members.lightgbm.import_pickles import import_pickles

        artifacts = import_pickles(arguments.pickles, lightgbm, arguments.trust_pickle)
        words, characters = (len(settings.vocabulary) for settings in artifacts.vocabularies)
        print(f"{lightgbm}: {len(artifacts.boosters)} boosters, {words} word terms, {characters} character terms")
    if arguments.state_dict:
        from lmsys_ray.members.classifier.import_state_dict import ImportSettings, import_state_dict

        lora = parse_options(ImportSettings, arguments.sets).lora
        weights = import_state_dict(arguments.state_dict, arguments.model, lora, adapter)
        print(f"{adapter}: {weights:,} weights, LoRA r {lora.r} on {', '.join(lora.target_modules)}")
