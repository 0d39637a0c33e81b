"""The boxes of the paper's figure: visual tokenizer, multimodal LLM, de-tokenizer, and their sizes."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .sequence import ImageTokens, PageEncoder, build_tokenizer
    from .resampler import Resampler
    from .visual_tokenizer import VisualTokenizer
    from .mllm import MLLMOutput, StoryMLLM, StoryMLLMConfig
    from .detokenizer import FeatureResampler, detokenize
    from .adapter import AdaptedMLLM
    from .presets import PRESETS, build, bundled_folder, preset

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'sequence': 'ImageTokens PageEncoder build_tokenizer',
        'resampler': 'Resampler',
        'visual_tokenizer': 'VisualTokenizer',
        'mllm': 'MLLMOutput StoryMLLM StoryMLLMConfig',
        'detokenizer': 'FeatureResampler detokenize',
        'adapter': 'AdaptedMLLM',
        'presets': 'PRESETS build bundled_folder preset',
    },
)
