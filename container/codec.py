"""Former names of the CSV modules."""

from lstm_fcn.container.csv_blocks import BYTE_ORDER_MARK as BYTE_ORDER_MARK
from lstm_fcn.container.csv_blocks import Plain as Plain
from lstm_fcn.container.csv_blocks import parse_plain as parse_plain
from lstm_fcn.container.csv_blocks import unpacked as unpacked
from lstm_fcn.container.csv_header import HEADERLESS as HEADERLESS
from lstm_fcn.container.csv_header import Columns as Columns
from lstm_fcn.container.csv_reader import Block as Block
from lstm_fcn.container.csv_reader import SeriesReader as SeriesReader
from lstm_fcn.container.csv_reader import describe_length as describe_length
from lstm_fcn.container.csv_reader import read_series as read_series
