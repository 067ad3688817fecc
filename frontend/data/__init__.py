"""Bundled data, text as numbers, and how batches come to a model."""

from graphc.frontend.data.dataset import PyDataset as PyDataset
from graphc.frontend.data.digits import load_digits as load_digits
from graphc.frontend.data.idx import FASHION_MNIST as FASHION_MNIST
from graphc.frontend.data.idx import load_fashion_mnist as load_fashion_mnist
from graphc.frontend.data.idx import load_idx as load_idx
from graphc.frontend.data.image_batches import ImageBatches as ImageBatches
from graphc.frontend.data.image_batches import show_images as show_images
from graphc.frontend.data.image_files import load_image as load_image
from graphc.frontend.data.image_generator import DirectoryBatches as DirectoryBatches
from graphc.frontend.data.image_generator import ImageDataGenerator as ImageDataGenerator
from graphc.frontend.data.prefetch import prefetch as prefetch
from graphc.frontend.data.text_buckets import BucketBatches as BucketBatches
from graphc.frontend.data.text_tokenizers import BytePairTokenizer as BytePairTokenizer
from graphc.frontend.data.text_tokenizers import CharacterTokenizer as CharacterTokenizer
from graphc.frontend.data.text_tokenizers import Tokenizer as Tokenizer
from graphc.frontend.data.text_tokenizers import WordTokenizer as WordTokenizer
from graphc.frontend.data.text_tokenizers import load_tokenizer as load_tokenizer
from graphc.frontend.data.text_vectors import WordVectors as WordVectors
from graphc.frontend.data.text_vectors import load_word_vectors as load_word_vectors
from graphc.frontend.data.text_vocabulary import Vocabulary as Vocabulary
from graphc.frontend.data.text_vocabulary import one_hot as one_hot
from graphc.frontend.data.text_vocabulary import pad_sequences as pad_sequences
